//! Every test of real processes in one program, so that two run at a time: most of their time they wait. The compose cluster has
//! its own, because it needs a docker engine.

mod bad_input;
mod clients;
mod cluster;
mod embedded;
mod growth;
mod membership;
mod recover;
mod scrub;
mod startup;
