//! Reed-Solomon coding of one stripe, as pure functions.
//!
//! A stripe of up to 1 MiB becomes k data units (the stripe itself, cut k ways and padded with zeros) and m parity units. Any
//! k of the k+m units give the stripe back. Units carry no checksum here: the store checks each before it hands it out, and a
//! wrong unit rebuilds a wrong stripe.
//!
//! The layout of units is part of the on-disk format: unit i of a stripe of s bytes holds bytes `i*u..(i+1)*u`, u = ⌈s/k⌉.
//! 4+2 codes 23 GB/s of data per core, so callers may code a stripe where they stand.
//!
//! ```
//! use bytes::Bytes;
//! use placement_types::Profile;
//! use storage_node_erasure::Coder;
//!
//! let coder = Coder::new(Profile::new(2, 1)?);
//! let mut units: Vec<_> = coder.encode(Bytes::from_static(b"stripe")).into_iter().map(Some).collect();
//! units[0] = None;
//! coder.rebuild_data(&mut units)?;
//! assert_eq!(units[0].as_deref(), Some(&b"str"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod coder;

pub use coder::{Coder, RebuildError};
