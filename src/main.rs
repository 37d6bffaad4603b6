//! The `dozo` binary.

fn main() {}
