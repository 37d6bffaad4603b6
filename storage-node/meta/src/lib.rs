//! Object index as a state machine: command in, writes out.
