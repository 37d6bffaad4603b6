//! Tokio's tasks on whatever runtime is current; blocking work runs in place, because a thread pool would bring back the
//! nondeterminism that the simulation removes.

use std::future::ready;

use placement_types::{BoxFuture, TaskHandle, Tasks};

use crate::system::spawn_on_tokio;

pub struct SimTasks;

impl Tasks for SimTasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        spawn_on_tokio(task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        Box::pin(ready(()))
    }
}
