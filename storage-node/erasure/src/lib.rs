//! Reed-Solomon coding of one stripe, as pure functions.
