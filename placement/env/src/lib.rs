//! The implementations of [`placement_types::Env`]: the only crate that asks the operating system for the time, randomness,
//! connections, files and tasks.
//!
//! - [`system()`] is the machine, for production.
//! - [`sim`] are seeded doubles: a file system that forgets what was not synced, a clock that follows tokio's paused one,
//!   ChaCha instead of the kernel's generator. The same seed gives the same run.
//!
//! ```
//! let (env, controls) = placement_env::sim::env(7);
//! env.fs.create_dir_all("/disk".as_ref()).unwrap();
//! controls.fs.crash_losing_unsynced();
//! assert!(env.fs.metadata("/disk".as_ref()).unwrap().is_none(), "nobody synced the parent directory");
//! ```

#![allow(clippy::disallowed_methods)]

pub mod sim;
mod system;

pub use system::system;
