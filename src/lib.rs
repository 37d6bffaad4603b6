//! The composition of Dozo: configuration, command line, roles, and the load generator. The binary is a call of [`cli::run`].

mod bench;
pub mod cli;
mod client;
mod config;
mod credentials;
mod net;
mod recover;
mod roles;
