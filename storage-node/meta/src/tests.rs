//! Tests of the whole state machine: golden scripts, histories against a naive model of S3, listings against a filter, and
//! hostile entries.

mod bounds;
mod entries;
mod golden;
mod history;
mod listing;
mod model;
mod replica;
mod script;
