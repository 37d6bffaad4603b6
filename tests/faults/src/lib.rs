//! What the simulation (`tests/sim`) and the soak on real processes (`tests/soak`) have in common: the catalogue of faults, what
//! clients note down, and the judges of it.
//!
//! - `rows.rs`: the catalogue. Each row has an id, what happens, and what is required; a run counts in a [`Tally`] that a fault
//!   of the row really happened. `tests/FAULTS.md` says what covers which row, and a test holds it to the truth.
//! - `body.rs`: bodies that no two writes share, so that a read tells which write it saw.
//! - `history.rs`: what clients did and were told.
//! - `checker.rs` judges a history by the promises K1, K2, K4, K5 and K14. `zones.rs` decides keys that are only written and
//!   read, in n log n; `linearizable.rs` searches an order for the others.

pub mod body;
mod checker;
mod history;
mod linearizable;
mod rows;
mod zones;

pub use checker::{Violation, check};
pub use history::{Action, Operation, Outcome};
pub use rows::{Row, Tally};
