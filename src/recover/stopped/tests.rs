use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use placement::SystemMachine;
use placement_env::sim::{self, SimFs};
use placement_map::ClusterMap;
use placement_map::recovery::{self, Drawn, Fate};
use placement_map::system::{NewDisk, NewNode, SystemChange};
use placement_types::{ClusterId, DiskId, ReplicaId, TxnId, ZoneName};
use storage_node::KvOpener;
use storage_node_consensus::{Consensus, Machine, Transport, state_prefix};
use storage_node_kv::{Kv, KvError, MemoryKv, Overlay};

use super::*;

const CLUSTER: ClusterId = ClusterId::from_u128(0xc1);

struct Nobody;

impl Transport for Nobody {
    fn send(&self, _: ReplicaId, _: Vec<Bytes>) {}
}

struct Nothing;

impl Machine for Nothing {
    fn apply(&self, _: &mut Overlay<'_>, _: u64, _: &[u8]) -> Result<Bytes, KvError> {
        Ok(Bytes::new())
    }
}

/// The machine of a node: replica 1, which holds the system group alone and group 1 with two others.
struct Host {
    env: Env,
    fs: SimFs,
    kv: MemoryKv,
    others: [NodeId; 2],
}

impl Host {
    async fn founded() -> Self {
        let (env, controls) = sim::env(5);
        env.fs.create_dir_all(Path::new("/data")).unwrap();
        env.fs.sync_dir(Path::new("/")).unwrap();
        let identity = IdentityFile::load_or_create(env.clone(), "/data/node").await.unwrap();
        let membership =
            Membership { cluster: CLUSTER, replica: ReplicaId(1), system_group: vec![(identity.node(), ReplicaId(1))] };
        identity.become_member(membership).await.unwrap();
        let others = [NodeId::from_u128(2), NodeId::from_u128(3)];
        let host = Self { env, fs: controls.fs, kv: MemoryKv::new(), others };
        let (consensus, _) = host.start().await;
        consensus.create_group(GroupId::SYSTEM, vec![ReplicaId(1)]).await.unwrap();
        consensus.create_group(GroupId(1), [1, 2, 3].map(ReplicaId).into()).await.unwrap();
        host.led(&consensus).await;
        let new = |node: NodeId| NewNode {
            node,
            address: format!("node-{node}:9100"),
            zone: ZoneName::default(),
            disks: vec![NewDisk { disk: DiskId::from_u128(node.as_u128()), capacity_bytes: 1 << 40 }],
        };
        let nodes = [identity.node(), others[0], others[1]].map(new).into();
        let change = SystemChange::Form { cluster: CLUSTER, nodes, profile: None, partitions: 16, groups: 2 };
        host.propose(&consensus, change).await;
        consensus.shutdown().await;
        host
    }

    /// As the role does: the machine reads what the store has before the log is applied.
    async fn start(&self) -> (Consensus, Arc<SystemMachine>) {
        let kv: Arc<dyn Kv> = Arc::new(self.kv.clone());
        let system = SystemMachine::new(kv.clone(), state_prefix(GroupId::SYSTEM)).unwrap();
        let machine = system.clone();
        let machines = Arc::new(move |group: GroupId| -> Arc<dyn Machine> {
            if group == GroupId::SYSTEM { machine.clone() } else { Arc::new(Nothing) }
        });
        let config = Config { segment_bytes: 1 << 20, ..Config::new(ReplicaId(1), "/data/node/log") };
        let consensus = Consensus::start(config, self.env.clone(), kv, Arc::new(Nobody), machines).await.unwrap();
        (consensus, system)
    }

    async fn led(&self, consensus: &Consensus) {
        let mut leaders = consensus.leaders();
        leaders.wait_for(|leaders| leaders.get(&GroupId::SYSTEM).is_some_and(|led| led.leader.is_some())).await.unwrap();
    }

    async fn propose(&self, consensus: &Consensus, change: SystemChange) {
        let command = SystemCommand { txn: TxnId::random(&self.env), time: Timestamp::from_millis(7), change };
        consensus.propose(GroupId::SYSTEM, command.to_versioned()).await.unwrap();
    }

    async fn open(&self) -> anyhow::Result<StoppedNode> {
        let kv = self.kv.clone();
        let open: KvOpener = Arc::new(move |_| Ok(Arc::new(kv.clone()) as Arc<dyn Kv>));
        StoppedNode::open(&self.env, Path::new("/data"), &KvOpeners { index: open.clone(), state: open }).await
    }

    async fn plan(&self) -> RecoveryPlan {
        let report = self.open().await.unwrap().report().unwrap();
        let drawn = Drawn {
            incarnation: self.env.random_u64() as u32 | 1,
            txn: TxnId::random(&self.env),
            time: Timestamp::from_millis(8),
        };
        recovery::plan(&[report], &BTreeSet::from(self.others), drawn).unwrap()
    }

    /// Power off, and on again.
    fn reboot(&mut self) {
        self.fs.crash();
        self.kv.crash_keeping(0);
        (self.env, _) = sim::env_on(&self.fs, self.env.random_u64());
    }

    async fn map_after_start(&self) -> Arc<ClusterMap> {
        let (consensus, system) = self.start().await;
        let mut maps = system.maps();
        let recovered = |map: &Option<Arc<ClusterMap>>| map.as_ref().is_some_and(|map| map.nodes.len() == 1);
        let map = maps.wait_for(recovered).await.unwrap().clone().unwrap();
        consensus.shutdown().await;
        map
    }
}

fn text<T>(result: anyhow::Result<T>) -> String {
    result.err().map_or("no error".to_owned(), |error| format!("{error:#}"))
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_made_of_what_a_node_has_and_applied_once() {
    let mut host = Host::founded().await;
    let plan = host.plan().await;
    let fate = |group: u32| &plan.fates.iter().find(|(id, _)| *id == GroupId(group)).unwrap().1;
    let newest = Some(Timestamp::from_millis(7));
    assert!(matches!(fate(0), Fate::Alone { newest: found, .. } if *found == newest));
    assert!(matches!(fate(1), Fate::Alone { newest: None, .. }));
    assert_eq!(fate(2), &Fate::Lost {});
    assert_eq!(host.open().await.unwrap().apply(&plan).unwrap(), Applied::Done);
    host.reboot();
    assert_eq!(host.open().await.unwrap().apply(&plan).unwrap(), Applied::Already);
    let report = host.open().await.unwrap().report().unwrap();
    assert_eq!(report.incarnation, plan.incarnation);
    assert!(report.replicas.iter().all(|replica| replica.voters == [ReplicaId(1)]));
    let map = host.map_after_start().await;
    assert_eq!(map.removed_nodes, BTreeSet::from(host.others));
    assert_eq!(map.groups[&GroupId(1)], [report.node]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_does_not_fit_the_node_is_refused() {
    let host = Host::founded().await;
    let plan = host.plan().await;
    let without = RecoveryPlan { nodes: Vec::new(), ..plan.clone() };
    assert!(text(host.open().await.unwrap().apply(&without)).contains("--join"));
    let other = RecoveryPlan { cluster: ClusterId::from_u128(9), ..plan.clone() };
    assert!(text(host.open().await.unwrap().apply(&other)).contains("is for cluster"));
    let later = RecoveryPlan { before: plan.incarnation, ..plan.clone() };
    assert!(text(host.open().await.unwrap().apply(&later)).contains("make a new plan"));
    let opened = host.open().await.unwrap();
    assert!(text(host.open().await).contains("stop the node first"));
    drop(opened);
    // Something was written since the inspection.
    let (consensus, _) = host.start().await;
    host.led(&consensus).await;
    host.propose(&consensus, SystemChange::Nothing {}).await;
    consensus.shutdown().await;
    assert!(text(host.open().await.unwrap().apply(&plan)).contains("has been running"));
    let fresh = host.plan().await;
    host.open().await.unwrap().apply(&fresh).unwrap();
    assert!(text(host.open().await.unwrap().apply(&plan)).contains("make a new plan"), "two plans were made apart");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_was_cut_off_anywhere_is_simply_repeated() {
    for operations in 0.. {
        let mut host = Host::founded().await;
        let plan = host.plan().await;
        let mut node = host.open().await.unwrap();
        host.fs.halt_after(operations);
        let whole = node.apply(&plan).is_ok();
        drop(node);
        host.reboot();
        let mut node = host.open().await.unwrap();
        let interrupted = node.report().is_err();
        assert!(!(whole && interrupted));
        let again = node.apply(&plan).unwrap();
        assert!(again == Applied::Done || !interrupted, "cut off after {operations} operations");
        drop(node);
        assert_eq!(host.map_after_start().await.removed_nodes, BTreeSet::from(host.others));
        if whole {
            assert!(operations > 5, "it was cut off at every step");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_stopped_node_is_refused() {
    let (env, _) = sim::env(1);
    let open: KvOpener = Arc::new(move |_| Ok(Arc::new(MemoryKv::new()) as Arc<dyn Kv>));
    let kv = KvOpeners { index: open.clone(), state: open };
    env.fs.create_dir_all(Path::new("/data")).unwrap();
    assert!(text(StoppedNode::open(&env, Path::new("/data"), &kv).await).contains("not the directory of a storage node"));
    drop(IdentityFile::load_or_create(env.clone(), "/data/node").await.unwrap());
    assert!(text(StoppedNode::open(&env, Path::new("/data"), &kv).await).contains("not part of any cluster"));
}
