//! Tokio's tasks and its pool of blocking threads.

use std::future::ready;

use placement_types::{BoxFuture, TaskHandle, Tasks};
use tokio::runtime::Handle;

pub(super) struct SystemTasks;

impl Tasks for SystemTasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        spawn_on_tokio(task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        // Started here, not at the first poll: the work runs even if nobody ever polls. A panic in it is the caller's to
        // notice, by the result that never came.
        let running = tokio::task::spawn_blocking(work);
        Box::pin(async move {
            let _ = running.await;
        })
    }
}

/// Spawns on the current runtime. The handle's end resolves after the task's own state was dropped, also when it was aborted or
/// panicked.
pub(crate) fn spawn_on_tokio(task: BoxFuture<'static, ()>) -> TaskHandle {
    let Ok(runtime) = Handle::try_current() else {
        // A destructor that runs because the runtime is gone: nothing will run any more, and a panic there would abort.
        return TaskHandle::new(Box::new(|| ()), Box::pin(ready(())));
    };
    let running = runtime.spawn(task);
    let abort = running.abort_handle();
    TaskHandle::new(
        Box::new(move || abort.abort()),
        Box::pin(async move {
            let _ = running.await;
        }),
    )
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use crate::system;

    #[test]
    fn a_destructor_may_spawn_when_the_runtime_is_gone() {
        let too_late = system().spawn("too late", async { unreachable!("there is nothing to run it") });
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(too_late.join());
    }

    #[tokio::test]
    async fn a_stopped_or_dropped_task_lets_go_of_what_it_held() {
        let env = system();
        let held = Arc::new(());
        let hold = || {
            let held = held.clone();
            async move {
                let _held = held;
                pending::<()>().await;
            }
        };
        let (stopped, dropped) = (env.spawn("stopped", hold()), env.spawn("dropped", hold()));
        assert_eq!(Arc::strong_count(&held), 3);
        stopped.stop().await;
        assert_eq!(Arc::strong_count(&held), 2);
        drop(dropped);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_task_that_panicked_can_be_joined() {
        system().spawn("panics", async { panic!("on purpose") }).join().await;
    }

    #[tokio::test]
    async fn blocking_work_does_not_stop_the_reactor() {
        let env = system();
        let (sender, receiver) = std::sync::mpsc::channel();
        // On the reactor of this single-threaded runtime the receive would wait for ever for a task that cannot run.
        let told = env.run_blocking(move || receiver.recv().unwrap());
        let (told, ()) = tokio::join!(told, async { sender.send(5).unwrap() });
        assert_eq!(told, 5);
    }
}
