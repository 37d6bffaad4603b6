//! The operator of a simulated cluster: does what the director orders, as `dozo admin` would, and tells when nothing is left to do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use placement::PlacementClient;
use placement_map::layout::settled;
use placement_map::system::{LayoutChange, SystemChange, SystemCommand, SystemOutcome};
use placement_map::{ClusterMap, ClusterSettings, DiskRole};
use placement_proto::api::{MapWatch, PlacementApi as _};
use placement_types::{DiskId, Env, TxnId};
use storage_node_proto::api::Nodes;

/// K9: this long after the last fault nothing is left to repair or to move.
pub const UPKEEP_MAX: Duration = Duration::from_secs(240);

/// By the name of the machine.
#[derive(Debug, Clone)]
pub enum Order {
    TakeIn(String),
    Drain(String),
}

/// From the director to the operator.
#[derive(Default)]
pub struct Orders {
    waiting: Mutex<VecDeque<Order>>,
    done: AtomicU64,
}

impl Orders {
    pub fn give(&self, order: Order) {
        self.waiting.lock().push_back(order);
    }

    /// How many were carried out.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

pub struct Operator {
    pub env: Env,
    pub client: PlacementClient,
    pub maps: MapWatch,
    pub nodes: Arc<dyn Nodes>,
    pub orders: Arc<Orders>,
}

impl Operator {
    /// Carries out orders, one after the other.
    pub async fn work(&self) {
        loop {
            let order = self.orders.waiting.lock().front().cloned();
            if let Some(order) = order
                && self.carry_out(&order).await
            {
                self.orders.waiting.lock().pop_front();
                self.orders.done.fetch_add(1, Ordering::Relaxed);
            }
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether the map shows it done.
    async fn carry_out(&self, order: &Order) -> bool {
        let Some(map) = self.maps.borrow().clone() else { return false };
        let (name, from) = match order {
            Order::TakeIn(name) => (name, DiskRole::Joining),
            Order::Drain(name) => (name, DiskRole::InUse),
        };
        let disks = disks_of(&map, name);
        let Some(disk) = disks.first() else { return false };
        if map.disks[disk].role != from {
            return true;
        }
        let change = match order {
            Order::TakeIn(_) => LayoutChange::TakeIn { disks },
            Order::Drain(_) => LayoutChange::Drain { disks },
        };
        self.try_change(SystemChange::SetLayout { planned_on: map.layout, change }).await
    }

    /// Changes the layout, as often as it takes, and waits until the map here shows it.
    pub async fn change_layout(&self, change: impl Fn(&ClusterMap) -> LayoutChange) {
        let mut maps = self.maps.clone();
        loop {
            let map = self.maps.borrow().clone();
            if let Some(map) = map
                && self.try_change(SystemChange::SetLayout { planned_on: map.layout, change: change(&map) }).await
            {
                let shown = maps.wait_for(|newer| newer.as_ref().is_some_and(|newer| newer.layout > map.layout)).await;
                shown.expect("the follower keeps the sender");
                return;
            }
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the ring is where it aims at: from then on new chunks are where they belong.
    pub async fn wait_ring_settled(&self) {
        loop {
            let map = self.maps.borrow().clone();
            if map.is_some_and(|map| settled(&map).ring == map.ring) {
                return;
            }
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    /// The addresses of the nodes that hold shards.
    pub async fn holders_of_shards(&self) -> Vec<String> {
        let mut holding = Vec::new();
        let Some(map) = self.maps.borrow().clone() else { return holding };
        for node in map.nodes.values() {
            let Some(api) = self.nodes.node(node.id) else { continue };
            let reports = self.env.timeout(Duration::from_secs(2), api.disks()).await;
            if let Ok(Ok(reports)) = reports
                && reports.iter().any(|report| report.shards > 0)
            {
                holding.push(node.address.clone());
            }
        }
        holding
    }

    /// Changes the settings, as often as it takes.
    pub async fn change_settings(&self, settings: ClusterSettings) {
        while !self.try_change(SystemChange::SetSettings { settings }).await {
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }

    async fn try_change(&self, change: SystemChange) -> bool {
        let command = SystemCommand { txn: TxnId::random(&self.env), time: self.env.now(), change };
        matches!(self.client.propose(command).await, Ok(SystemOutcome::Done))
    }

    /// Waits until every group was surveyed by the newest map and nothing is left to repair or to move.
    pub async fn wait_settled(&self) -> Result<(), String> {
        let began = self.env.monotonic();
        loop {
            let left = self.left().await;
            match left {
                None => return Ok(()),
                Some(left) if self.env.monotonic() - began > UPKEEP_MAX => return Err(left),
                Some(_) => self.env.sleep(Duration::from_millis(500)).await,
            }
        }
    }

    async fn left(&self) -> Option<String> {
        if !self.orders.waiting.lock().is_empty() {
            return Some(format!("orders {:?}", self.orders.waiting.lock()));
        }
        let map = self.maps.borrow().clone()?;
        let mut surveyed = Vec::new();
        for id in map.nodes.keys() {
            let Some(node) = self.nodes.node(*id) else { continue };
            let Ok(Ok(report)) = self.env.timeout(Duration::from_secs(2), node.upkeep()).await else { continue };
            for survey in report.surveys.into_iter().filter(|survey| survey.epoch >= map.epoch) {
                let work = [survey.lost, survey.leaving, survey.misplaced, survey.outdated];
                if work.iter().any(|work| work.shards > 0) {
                    return Some(format!("{}: lost, leaving, misplaced, outdated {work:?}", survey.group));
                }
                surveyed.push(survey.group);
            }
        }
        let unknown: Vec<_> = map.metadata_groups().filter(|group| !surveyed.contains(group)).collect();
        (!unknown.is_empty()).then(|| format!("not surveyed {unknown:?}"))
    }
}

pub fn disks_of(map: &ClusterMap, name: &str) -> Vec<DiskId> {
    let address = |host: &str| host.rsplit_once(':').is_some_and(|(host, _)| host == name);
    let node = map.nodes.values().find(|node| address(&node.address)).map(|node| node.id);
    map.disks.values().filter(|disk| Some(disk.node) == node).map(|disk| disk.id).collect()
}
