//! Tests of the whole store, on a simulated machine. Each submodule is one kind of promise.

mod crash;
mod damage;
mod identity;
mod machine;
mod model;
mod rocks;
mod scrub;
mod space;
mod writing;
