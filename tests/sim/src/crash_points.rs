//! Lets a process die, or one operation stop for a while, exactly where that is: at a [`Waypoint`] that was chosen before.
//!
//! The machine loses its power inside the call, so that nothing after the point reaches a disk, and the operation goes on never.
//! The harness takes the process away before the simulation's next tick, and what was not synced with it.

use std::collections::{BTreeMap, VecDeque};
use std::future::{pending, ready};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use placement_types::{BoxFuture, Watcher, Waypoint};

use crate::machine::Machine;

/// Shared by all machines of a run.
#[derive(Default)]
pub struct CrashPoints {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The next to strike first, each with how many passes go by before.
    armed: VecDeque<(Waypoint, u64)>,
    /// Where the next operation that comes past stops, and for how long.
    stop: Option<(Waypoint, Duration)>,
    /// Machines of which the process is to be taken away, and whether that was at a point.
    dead: Vec<(Arc<Machine>, Option<Waypoint>)>,
    passed: BTreeMap<Waypoint, u64>,
}

/// The eyes on one machine.
struct Eyes {
    points: Arc<CrashPoints>,
    machine: Weak<Machine>,
}

impl CrashPoints {
    /// From its next start on, the machine's processes may die at points.
    pub fn watch(self: &Arc<Self>, machine: &Arc<Machine>) {
        machine.set_watcher(Arc::new(Eyes { points: self.clone(), machine: Arc::downgrade(machine) }));
    }

    /// Whoever comes past the first of these points for the given time dies, then whoever comes past the second, and so on.
    pub fn arm(&self, deaths: impl IntoIterator<Item = (Waypoint, u64)>) {
        self.state.lock().armed = deaths.into_iter().collect();
    }

    /// The next operation that comes past this point goes on so much later.
    pub fn stop(&self, at: Waypoint, lasting: Duration) {
        self.state.lock().stop = Some((at, lasting));
    }

    /// Where nobody died yet.
    pub fn armed(&self) -> Vec<Waypoint> {
        self.state.lock().armed.iter().map(|(waypoint, _)| *waypoint).collect()
    }

    /// The machine loses its power now.
    pub fn kill(&self, machine: &Arc<Machine>) {
        machine.cut_power();
        self.state.lock().dead.push((machine.clone(), None));
    }

    pub fn take_dead(&self) -> Vec<(Arc<Machine>, Option<Waypoint>)> {
        std::mem::take(&mut self.state.lock().dead)
    }

    /// How often each point was passed, also by those who died there.
    pub fn passed(&self) -> BTreeMap<Waypoint, u64> {
        self.state.lock().passed.clone()
    }

    /// How long the operation stops here.
    fn stops(&self, waypoint: Waypoint) -> Option<Duration> {
        self.state.lock().stop.take_if(|(at, _)| *at == waypoint).map(|(_, lasting)| lasting)
    }

    /// Whether the machine dies here.
    fn strikes(&self, machine: &Arc<Machine>, waypoint: Waypoint) -> bool {
        let state = &mut *self.state.lock();
        *state.passed.entry(waypoint).or_default() += 1;
        match state.armed.front_mut() {
            Some((armed, 0)) if *armed == waypoint => {}
            Some((armed, passes)) if *armed == waypoint => {
                *passes -= 1;
                return false;
            }
            _ => return false,
        }
        state.armed.pop_front();
        state.dead.push((machine.clone(), Some(waypoint)));
        true
    }
}

impl Watcher for Eyes {
    fn pass(&self, waypoint: Waypoint) -> BoxFuture<'static, ()> {
        let Some(machine) = self.machine.upgrade() else { return Box::pin(ready(())) };
        if machine.is_dying() {
            return Box::pin(pending());
        }
        if let Some(lasting) = self.points.stops(waypoint) {
            return machine.sleep(lasting);
        }
        if !self.points.strikes(&machine, waypoint) {
            return Box::pin(ready(()));
        }
        machine.cut_power();
        Box::pin(pending())
    }
}
