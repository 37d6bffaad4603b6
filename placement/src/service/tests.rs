//! The whole of this crate on real consensus: three nodes that found a cluster, lose members, and come back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use placement_env::sim::{self, SimFs};
use placement_map::NodeState;
use placement_map::bucket::{BucketState, BucketVersioning};
use placement_map::system::{NewDisk, NewNode, SystemChange};
use placement_types::{BoxFuture, BucketId, ClusterId, DiskId, TaskHandle, TxnId, ZoneName};
use storage_node_consensus::{Config, Transport, state_prefix};
use storage_node_kv::MemoryKv;
use tokio::sync::watch;

use super::*;
use crate::bootstrap::{Asked, BootstrapError, Claim, Shape, ask_for_claim, form, make_claim, register};
use crate::client::PlacementClient;
use crate::identity::Founding;
use crate::reporter::{self, DiskReport};
use crate::steward;

/// Running nodes by address and by replica.
#[derive(Default)]
struct Net {
    services: Mutex<BTreeMap<String, Running>>,
    replicas: Mutex<BTreeMap<ReplicaId, Consensus>>,
}

#[derive(Clone)]
struct Running {
    service: Arc<PlacementService>,
    /// Its sender is dropped when the node is killed: calls under way end with it.
    alive: watch::Receiver<()>,
}

struct Messages {
    env: Env,
    net: Arc<Net>,
}

impl Transport for Messages {
    fn send(&self, to: ReplicaId, messages: Vec<Bytes>) {
        let (env, net) = (self.env.clone(), self.net.clone());
        let arrive = async move {
            env.sleep(Duration::from_millis(1)).await;
            let consensus = net.replicas.lock().get(&to).cloned();
            if let Some(consensus) = consensus {
                consensus.step(messages);
            }
        };
        self.env.spawn("messages", arrive).detach();
    }
}

/// The service at an address, if it runs.
struct Remote {
    net: Arc<Net>,
    address: String,
}

impl Remote {
    async fn call<'a, T>(
        &self,
        work: impl FnOnce(Arc<PlacementService>) -> BoxFuture<'a, Result<T, PlacementError>>,
    ) -> Result<T, PlacementError> {
        let unavailable = || PlacementError::Unavailable { why: "refused".into() };
        let Running { service, mut alive } = self.net.services.lock().get(&self.address).cloned().ok_or_else(unavailable)?;
        tokio::select! {
            result = work(service) => result,
            _ = alive.changed() => Err(PlacementError::Unknown { why: "connection lost".into() }),
        }
    }
}

#[async_trait]
impl PlacementApi for Remote {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        self.call(|service| Box::pin(async move { service.propose(command).await })).await
    }

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        self.call(|service| Box::pin(async move { service.bucket(name).await })).await
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        self.call(|service| Box::pin(async move { service.buckets().await })).await
    }

    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        self.call(|service| Box::pin(async move { service.newer_map(known).await })).await
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        self.call(|service| Box::pin(async move { service.system_copy().await })).await
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), PlacementError> {
        self.call(|service| Box::pin(async move { service.heartbeat(beat).await })).await
    }
}

struct Host {
    number: u64,
    fs: SimFs,
    kv: MemoryKv,
    dead_disks: Arc<Mutex<Vec<DiskId>>>,
    /// The run that its directory is at.
    boot: Boot,
    running: Option<(Consensus, Vec<TaskHandle>, watch::Sender<()>)>,
}

struct Cluster {
    env: Env,
    net: Arc<Net>,
    founding: Founding,
    hosts: Vec<Host>,
    client: PlacementClient,
}

fn address(number: u64) -> String {
    format!("node-{number}:9100")
}

fn new_node(number: u64) -> NewNode {
    NewNode {
        node: NodeId::from_u128(number.into()),
        address: address(number),
        zone: ZoneName::default(),
        disks: vec![NewDisk { disk: DiskId::from_u128(u128::from(number) * 10), capacity_bytes: 1 << 40 }],
    }
}

fn client_of(env: &Env, net: &Arc<Net>, nodes: u64) -> PlacementClient {
    let net = net.clone();
    let connect: crate::client::Connect =
        Arc::new(move |address| Arc::new(Remote { net: net.clone(), address: address.into() }) as Arc<dyn PlacementApi>);
    PlacementClient::new(env.clone(), connect, (1..=nodes).map(address).collect(), None)
}

impl Cluster {
    async fn start(nodes: u64) -> Self {
        let (env, _) = sim::env(1);
        let net: Arc<Net> = Arc::default();
        let founding = Founding { cluster: ClusterId::from_u128(0xc1), nodes: (1..=nodes).map(new_node).collect() };
        let client = client_of(&env, &net, nodes);
        let hosts = (1..=nodes).map(|number| Host {
            number,
            fs: SimFs::new(number),
            kv: MemoryKv::new(),
            dead_disks: Arc::default(),
            boot: Boot { number: 0, nonce: 0 },
            running: None,
        });
        let hosts = hosts.collect();
        let mut cluster = Self { env, net, founding, hosts, client };
        for index in 0..nodes as usize {
            cluster.start_host(index).await;
        }
        cluster
    }

    async fn start_host(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let node = new_node(host.number);
        let before = host.boot;
        host.boot = Boot { number: before.number + 1, nonce: host.number };
        let tenure = Tenure::new(node.node, host.boot);
        let membership = self.founding.membership_of(node.node).unwrap();
        // Its own dice: transaction ids must differ from those of the test.
        let (env, _) = sim::env_on(&host.fs, 100 + host.number);
        let prefix = state_prefix(GroupId::SYSTEM);
        let machine = SystemMachine::new(Arc::new(host.kv.clone()), prefix).unwrap();
        let config = Config::new(membership.replica, "/log");
        let transport = Arc::new(Messages { env: env.clone(), net: self.net.clone() });
        let machines: storage_node_consensus::Machines = {
            let machine = machine.clone();
            Arc::new(move |_| machine.clone())
        };
        let consensus = Consensus::start(config, env.clone(), Arc::new(host.kv.clone()), transport, machines).await.unwrap();
        let voters = membership.system_group.iter().map(|(_, replica)| *replica).collect();
        consensus.create_group(GroupId::SYSTEM, voters).await.unwrap();
        let service = PlacementService::new(env.clone(), consensus.clone(), machine, membership.clone(), tenure.clone());
        let (alive_until, alive) = watch::channel(());
        self.net.services.lock().insert(node.address.clone(), Running { service: service.clone(), alive });
        self.net.replicas.lock().insert(membership.replica, consensus.clone());
        let own_client = client_of(&env, &self.net, 3);
        let dead = host.dead_disks.clone();
        let report = move || DiskReport { full: Vec::new(), dead: dead.lock().clone() };
        let tasks = vec![
            steward::start(env.clone(), service),
            reporter::start(env.clone(), tenure, Arc::new(own_client.clone()), report),
            own_client.follow(),
        ];
        host.running = Some((consensus, tasks, alive_until));
    }

    /// A power cut: what was not fsynced is gone.
    async fn kill(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        self.net.services.lock().remove(&address(host.number));
        self.net.replicas.lock().remove(&ReplicaId(host.number));
        if let Some((consensus, tasks, alive_until)) = host.running.take() {
            let mut health = consensus.health();
            drop((consensus, alive_until));
            for task in tasks {
                task.stop().await;
            }
            // The last handle is gone when the last call has ended; until then the driver would write on.
            while health.changed().await.is_ok() {}
        }
        host.fs.crash_losing_unsynced();
        host.kv.crash();
    }

    async fn found(&self) {
        form(&self.env, &self.client, &self.founding, &Shape { partitions: 64, ..Shape::default() }).await.unwrap();
    }

    /// Waits, for as long as it takes on this clock, until the map is so.
    async fn wait_for_map(&self, wanted: impl Fn(&ClusterMap) -> bool) -> Arc<ClusterMap> {
        let mut maps = self.client.maps();
        let waited = maps.wait_for(|map| map.as_deref().is_some_and(&wanted));
        let found = self.env.timeout(Duration::from_secs(60), waited).await.expect("the map becomes so within a minute");
        found.unwrap().clone().unwrap()
    }

    fn leader(&self) -> Option<usize> {
        self.hosts.iter().position(|host| host.running.as_ref().is_some_and(|(consensus, _, _)| consensus.leads(GroupId::SYSTEM)))
    }

    async fn create_bucket(&self, name: &str) -> SystemOutcome {
        let bucket = Bucket {
            name: BucketName::parse(name).unwrap(),
            id: BucketId::random(&self.env),
            created: self.env.now(),
            index_shards: 8,
            region: String::new(),
            owner: "ann".into(),
            versioning: BucketVersioning::Unversioned,
            state: BucketState::Active,
        };
        let change = SystemChange::CreateBucket { bucket };
        self.client.propose(SystemCommand { txn: TxnId::random(&self.env), time: self.env.now(), change }).await.unwrap()
    }

    async fn bucket_names(&self) -> Vec<String> {
        self.client.buckets().await.unwrap().iter().map(|bucket| bucket.name.to_string()).collect()
    }
}

/// A claim of a run that comes after `known`.
fn claim(number: u64, nonce: u64, known: &[Boot]) -> Claim {
    let next = known.iter().map(|boot| boot.number).max().unwrap_or_default() + 1;
    Claim { node: NodeId::from_u128(number.into()), boot: Boot { number: next, nonce }, known: known.to_vec() }
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_refused_while_the_original_lives_and_the_original_goes_on() {
    let cluster = Cluster::start(3).await;
    cluster.found().await;
    let _following = cluster.client.follow();
    for host in &cluster.hosts {
        let first = Claim { node: new_node(host.number).node, boot: host.boot, known: vec![host.boot] };
        make_claim(&cluster.env, &cluster.client, &first).await.unwrap();
    }
    cluster.env.sleep(Duration::from_secs(10)).await;
    for host in &cluster.hosts {
        // The leader's own node, too.
        let clone = claim(host.number, 77, &[host.boot]);
        let refused = ask_for_claim(&cluster.env, &cluster.client, &clone).await;
        assert_eq!(refused, Err(BootstrapError::InUse { node: clone.node }));
    }
    let map = cluster.wait_for_map(|map| map.boots.len() == 3).await;
    assert!(cluster.hosts.iter().all(|host| map.boots[&new_node(host.number).node] == host.boot));
    assert!(map.nodes.values().all(|node| node.state == NodeState::Up));
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_the_node_over_within_seconds_and_what_it_replaced_is_told() {
    let mut cluster = Cluster::start(3).await;
    cluster.found().await;
    let _following = cluster.client.follow();
    let victim = (0..3).find(|index| cluster.leader() != Some(*index)).unwrap();
    let first = Claim { node: new_node(victim as u64 + 1).node, boot: cluster.hosts[victim].boot, known: vec![] };
    make_claim(&cluster.env, &cluster.client, &first).await.unwrap();
    cluster.env.sleep(Duration::from_secs(10)).await;
    cluster.kill(victim).await;
    let killed_at = cluster.env.monotonic();
    let second = claim(victim as u64 + 1, 5, &[first.boot]);
    assert_eq!(ask_for_claim(&cluster.env, &cluster.client, &second).await, Ok(Asked::Claimed));
    let took = cluster.env.monotonic() - killed_at;
    assert!(took < Duration::from_secs(5), "{took:?}");
    // Had it been paused only, this is what it would hear, and what an older copy of its directory hears for ever.
    let beat = Heartbeat { node: first.node, boot: first.boot, full: vec![], dead: vec![] };
    assert_eq!(cluster.client.heartbeat(beat).await, Err(PlacementError::Superseded { node: first.node }));
    cluster.env.sleep(Duration::from_secs(60)).await;
    let old_copy = claim(victim as u64 + 1, 9, &[first.boot]);
    let refused = ask_for_claim(&cluster.env, &cluster.client, &old_copy).await;
    assert_eq!(refused, Err(BootstrapError::Outdated { node: first.node }));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_starts_as_a_whole_has_nobody_to_ask() {
    let mut cluster = Cluster::start(3).await;
    cluster.found().await;
    for index in 0..3 {
        cluster.kill(index).await;
    }
    let first = claim(1, 1, &[]);
    assert_eq!(ask_for_claim(&cluster.env, &cluster.client, &first).await, Ok(Asked::Unanswered));
    for index in 0..3 {
        cluster.start_host(index).await;
    }
    make_claim(&cluster.env, &cluster.client, &first).await.unwrap();
}

fn state_of(map: &ClusterMap, number: u64) -> NodeState {
    map.nodes[&NodeId::from_u128(number.into())].state
}

#[tokio::test(start_paused = true)]
async fn a_single_node_is_a_cluster() {
    let mut cluster = Cluster::start(1).await;
    cluster.found().await;
    let _following = cluster.client.follow();
    let map = cluster.wait_for_map(|map| map.epoch == Epoch(1)).await;
    assert_eq!(map.profile.to_string(), "1+0");
    assert_eq!(cluster.create_bucket("photos").await, SystemOutcome::Done);
    cluster.kill(0).await;
    cluster.start_host(0).await;
    assert_eq!(cluster.bucket_names().await, ["photos"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_map_there_are_no_buckets_and_founding_again_is_harmless() {
    let cluster = Cluster::start(3).await;
    assert_eq!(cluster.client.buckets().await, Err(PlacementError::NotFormed));
    cluster.found().await;
    cluster.found().await;
    register(&cluster.env, &cluster.client, new_node(2)).await.unwrap();
    let stranger = register(&cluster.env, &cluster.client, new_node(9)).await;
    assert!(matches!(stranger, Err(crate::bootstrap::BootstrapError::UnknownNode { .. })));
    let other = Founding { cluster: ClusterId::from_u128(2), ..cluster.founding.clone() };
    let refused = form(&cluster.env, &cluster.client, &other, &Shape::default()).await;
    assert!(matches!(refused, Err(crate::bootstrap::BootstrapError::OtherCluster { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_goes_down_and_comes_back_and_nobody_else_does() {
    let mut cluster = Cluster::start(3).await;
    cluster.found().await;
    let _following = cluster.client.follow();
    cluster.wait_for_map(|map| map.epoch == Epoch(1)).await;
    cluster.env.sleep(Duration::from_secs(30)).await;
    let victim = (0..3).find(|index| cluster.leader() != Some(*index)).unwrap();
    let number = victim as u64 + 1;
    cluster.kill(victim).await;
    let map = cluster.wait_for_map(|map| state_of(map, number) == NodeState::Down).await;
    assert_eq!(map.epoch, Epoch(2), "thirty quiet seconds changed nothing");
    cluster.start_host(victim).await;
    let map = cluster.wait_for_map(|map| state_of(map, number) == NodeState::Up).await;
    assert_eq!(map.epoch, Epoch(3));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_and_takes_nobody_with_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.found().await;
    let _following = cluster.client.follow();
    assert_eq!(cluster.create_bucket("photos").await, SystemOutcome::Done);
    for round in 0..3 {
        let leader = cluster.leader().expect("it answered");
        cluster.kill(leader).await;
        assert_eq!(cluster.create_bucket(&format!("bucket-{round}")).await, SystemOutcome::Done);
        assert!(matches!(cluster.create_bucket("photos").await, SystemOutcome::BucketExists { .. }));
        let number = leader as u64 + 1;
        let map = cluster.wait_for_map(|map| state_of(map, number) == NodeState::Down).await;
        assert_eq!(map.nodes.values().filter(|node| node.state == NodeState::Down).count(), 1);
        cluster.start_host(leader).await;
        cluster.wait_for_map(|map| state_of(map, number) == NodeState::Up).await;
    }
    assert_eq!(cluster.bucket_names().await, ["bucket-0", "bucket-1", "bucket-2", "photos"]);
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_of_everything_loses_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.found().await;
    let _following = cluster.client.follow();
    cluster.hosts[1].dead_disks.lock().push(DiskId::from_u128(20));
    let disk_died = |map: &ClusterMap| !map.takes_shards(DiskId::from_u128(20));
    let before = cluster.wait_for_map(disk_died).await;
    assert_eq!(cluster.create_bucket("photos").await, SystemOutcome::Done);
    for index in 0..3 {
        cluster.kill(index).await;
    }
    cluster.env.sleep(Duration::from_secs(60)).await;
    for index in 0..3 {
        cluster.start_host(index).await;
    }
    assert_eq!(cluster.bucket_names().await, ["photos"]);
    let after = client_of(&cluster.env, &cluster.net, 3).newer_map(Epoch(0)).await.unwrap();
    assert_eq!(after, before, "nobody was taken for down while nobody listened");
}
