//! The storage side of a process: its place in a cluster, its disks, its replicas, and what keeps them in step.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use placement::backup::Keeper;
use placement::bootstrap::{Asked, Claim, Shape, ask_for_claim, form, join, make_claim, register};
use placement::life::{self, Life, Stage};
use placement::reporter::{self, DiskReport};
use placement::{IdentityFile, Meeting, PlacementClient, PlacementService, SystemMachine, steward};
use placement_map::ClusterMap;
use placement_map::system::{NewDisk, NewNode};
use placement_proto::api::{MapWatch, PlacementApi};
use placement_proto::meeting::Membership;
use placement_proto::tenure::Tenure;
use placement_rpc::Lineage;
use placement_types::{ClusterId, Env, GroupId, Incarnation, NodeId, Profile, ReplicaId, TaskHandle, ZoneName};
use storage_node::{KvOpeners, Limits, NodeParts, StorageNode};
use storage_node_consensus::{Health, state_prefix};
use storage_node_kv::Kv;
use storage_node_proto::api::{NodeApi, Nodes};
use storage_node_proto::serve::Served;

use super::ballast;
use super::data_dirs::DataDirs;
use crate::net::{Directory, LatePlacement, Peers, RaftTransport, meeting_connect, placement_connect};

/// What a storage side is made from.
pub struct StorageParts {
    pub env: Env,
    pub data: Vec<String>,
    /// The address under which peers reach this process; nobody does in an embedded server.
    pub address: String,
    pub zone: ZoneName,
    pub profile: Option<Profile>,
    /// How many nodes found the cluster; `None`: this node joins one that exists.
    pub expect: Option<u32>,
    /// Addresses of nodes to found with, or of members of the cluster to join.
    pub peer_addresses: Vec<String>,
    /// The first data directory is elsewhere than at the start before, and is no copy: an operator says so.
    pub moved: bool,
    pub kv: KvOpeners,
    pub limits: Limits,
}

/// A storage side that knows who it is, but not yet how to reach peers.
pub struct Candidate {
    parts: StorageParts,
    dirs: DataDirs,
    identity: IdentityFile,
    tenure: Tenure,
    lineage: Lineage,
    me: NewNode,
}

/// A storage side that can answer peers that look for a cluster, and look for one itself.
pub struct Seeker {
    candidate: Candidate,
    peers: Option<Arc<Peers>>,
    pub meeting: Arc<Meeting>,
    /// What the internal port serves, set by [`Seeker::start`].
    pub served: Arc<OnceLock<Served>>,
    pub placement: Arc<OnceLock<Arc<dyn PlacementApi>>>,
}

/// A running storage side.
pub struct Storage {
    pub id: NodeId,
    pub maps: MapWatch,
    pub client: Arc<dyn PlacementApi>,
    pub nodes: Arc<Directory>,
    tenure: Tenure,
    node: StorageNode,
    lineage: Lineage,
    tasks: Vec<TaskHandle>,
}

impl Candidate {
    /// Opens the data directories and the identity; draws them at the first start.
    ///
    /// # Errors
    /// A directory or file that cannot be used: the message names it.
    pub async fn open(parts: StorageParts) -> anyhow::Result<Self> {
        let (env, data) = (parts.env.clone(), parts.data.clone());
        let opened = parts.env.run_blocking(move || {
            let dirs = DataDirs::open(&env, &data)?;
            let capacities = dirs.capacities(&env)?;
            anyhow::Ok((dirs, capacities))
        });
        let (dirs, capacities) = opened.await?;
        let identity = IdentityFile::load_or_create(parts.env.clone(), dirs.node_dir())
            .await
            .with_context(|| format!("{} cannot be used", dirs.node_dir().display()))?;
        if parts.moved { identity.accept_place().await } else { identity.guard_place().await }?;
        let tenure = Tenure::new(identity.node(), identity.begin_run().await?);
        let lineage = lineage_of(&parts.env, dirs.node_dir(), identity.current().membership.as_ref()).await?;
        let me = NewNode {
            node: identity.node(),
            address: parts.address.clone(),
            zone: parts.zone.clone(),
            disks: capacities.into_iter().map(|(disk, capacity_bytes)| NewDisk { disk, capacity_bytes }).collect(),
        };
        Ok(Self { parts, dirs, identity, tenure, lineage, me })
    }

    pub fn node(&self) -> NodeId {
        self.me.node
    }

    /// Which incarnation of its cluster the node belongs to.
    pub fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }

    /// Gives the candidate its way to peers; `None` in an embedded server, which has none.
    ///
    /// # Errors
    /// When so many nodes cannot found a cluster.
    pub fn with_peers(self, peers: Option<Arc<Peers>>) -> anyhow::Result<Seeker> {
        let connect = meeting_connect(peers.clone());
        let (env, addresses) = (self.parts.env.clone(), self.parts.peer_addresses.clone());
        let meeting = Meeting::new(env, self.identity.clone(), self.me.clone(), self.parts.expect, addresses, connect)?;
        Ok(Seeker { candidate: self, peers, meeting, served: Arc::default(), placement: Arc::default() })
    }
}

impl Seeker {
    /// Finds or founds the cluster, starts disks and replicas, and returns once this node is in the cluster map.
    ///
    /// # Errors
    /// What needs an operator: a peer of another cluster, a disk or log that cannot be used.
    pub async fn start(self) -> anyhow::Result<Storage> {
        let Self { candidate, peers, meeting, served, placement } = self;
        let Candidate { parts, mut dirs, identity, tenure, lineage, me } = candidate;
        let env = parts.env.clone();
        let local = LatePlacement::new(placement.clone());
        let connect = placement_connect(parts.address.clone(), local, peers.clone());
        // Its own address among them: after a restart of everything, the map may be nowhere but in this process's replica.
        let mut seeds = parts.peer_addresses.clone();
        if !seeds.contains(&me.address) {
            seeds.push(me.address.clone());
        }
        if parts.expect.is_none() && identity.current().membership.is_none() {
            let found = meeting.find_member().await;
            let asked = PlacementClient::new(env.clone(), connect.clone(), seeds.clone(), Some(found.cluster));
            // Members that do not lead name the leader by its id: only a map tells where that is.
            let following = asked.follow();
            let replica = join(&env, &asked, me.clone()).await.context("cannot join the cluster")?;
            drop(following);
            enter_life(&env, dirs.node_dir(), found.cluster, &lineage).await?;
            identity.become_member(Membership { replica, ..found }).await?;
        }
        let met = meeting.run().await.context("cannot find a cluster")?;
        let Membership { cluster, replica, system_group } = met.membership.clone();
        if !lineage.is_member() {
            lineage.settle(cluster, Incarnation::FIRST);
        }

        let alone = seeds == [me.address.clone()];
        let client = PlacementClient::new(env.clone(), connect, seeds, Some(cluster));
        let claim = Claim { node: me.node, boot: tenure.boot(), known: identity.current().boots };
        if identity.current().log_made && !alone {
            match ask_for_claim(&env, &client, &claim).await.context("this process cannot be the node")? {
                Asked::Claimed => identity.confirm_run(tenure.boot()).await?,
                Asked::Unanswered => tracing::info!("nobody says which process is this node: the cluster starts as a whole"),
            }
        }
        let maps = client.maps();
        let nodes = Arc::new(Directory::new(maps.clone(), peers.clone()));
        let transport = Arc::new(RaftTransport::new(env.clone(), peers.clone(), tenure.clone()));
        // Until there is a map to tell, the founding record tells where the replicas of the system group are.
        for (number, founder) in (1..).zip(&met.founders) {
            transport.learn(ReplicaId(number), founder.node, &founder.address);
        }

        let (state_dir, copies_dir) = (dirs.node_dir().to_owned(), dirs.node_dir().to_owned());
        let log_dir = state_dir.join("log");
        identity.guard_log(&log_dir).await?;
        let (state, system_machine) = open_state(&env, &parts.kv, &state_dir).await?;
        let node = StorageNode::start(NodeParts {
            env: env.clone(),
            tenure: tenure.clone(),
            replica,
            cluster,
            disks: dirs.disk_dirs(),
            state_dir,
            maps: maps.clone(),
            nodes: nodes.clone() as Arc<dyn Nodes>,
            transport: transport.clone(),
            system_machine: system_machine.clone(),
            // The state is open already: the system group's machine reads from it too.
            kv: KvOpeners { index: parts.kv.index.clone(), state: Arc::new(move |_| Ok(state.clone())) },
            limits: parts.limits,
        })
        .await?;
        identity.record_log().await?;
        let formatted_env = env.clone();
        let dirs = env.run_blocking(move || dirs.mark_formatted(&formatted_env).map(|()| dirs)).await?;
        let api: Arc<dyn NodeApi> = Arc::new(node.clone());
        nodes.set_local(me.node, api.clone());

        let mut tasks = Vec::new();
        let system = SystemReplica {
            env: env.clone(),
            tenure: tenure.clone(),
            node: node.clone(),
            machine: system_machine,
            membership: met.membership.clone(),
            placement,
        };
        // Whoever belongs to a later incarnation has a replica already, or waits to be brought in.
        let is_first = lineage.own() == Incarnation::FIRST;
        if is_first && system_group.iter().any(|(member, _)| *member == me.node) {
            let voters = system_group.iter().map(|(_, replica)| *replica).collect();
            node.consensus().create_group(GroupId::SYSTEM, voters).await.context("cannot create the system group")?;
        }
        if node.consensus().group_status(GroupId::SYSTEM).is_some() {
            tasks.push(system.serve());
        } else {
            tasks.push(env.spawn("system-replica", system.serve_when_called(maps.clone())));
        }
        assert!(served.set(Served { node: api, raft: Arc::new(node.clone()) }).is_ok(), "a process has one node");
        tasks.push(client.follow());
        tasks.push(env.spawn("map-learner", learn_maps(maps.clone(), transport, peers, tenure.clone())));
        tasks.push(env.spawn("ballast", ballast::keep(env.clone(), dirs.paths())));
        tasks.push(env.spawn("removed-disks", forget_removed(env.clone(), maps.clone(), dirs)));
        if let Some(founding) = &met.founding
            && maps.borrow().is_none()
        {
            let shape = Shape { profile: parts.profile, groups: groups_of(founding.nodes.len()), ..Shape::default() };
            form(&env, &client, founding, &shape).await?;
        }
        make_claim(&env, &client, &claim).await.context("this process cannot be the node")?;
        identity.confirm_run(tenure.boot()).await?;
        register(&env, &client, me.clone()).await?;
        wait_for_node(maps.clone(), me.node).await;
        warn_of_other_profile(parts.profile, &maps);
        tasks.extend(start_heartbeats(&env, &node, &client, tenure.clone()));
        let noted = node.clone();
        let keeper = Keeper {
            env: env.clone(),
            node_dir: copies_dir,
            incarnation: lineage.own(),
            placement: Arc::new(client.clone()),
            maps: maps.clone(),
            taken: Arc::new(move |taken| noted.note_system_copy(taken)),
        };
        tasks.push(keeper.start());
        Ok(Storage { id: me.node, maps, client: Arc::new(client), nodes, tenure, node, lineage, tasks })
    }
}

/// What a process needs to serve the system group's face once it holds a replica of it.
struct SystemReplica {
    env: Env,
    tenure: Tenure,
    node: StorageNode,
    machine: Arc<SystemMachine>,
    membership: Membership,
    placement: Arc<OnceLock<Arc<dyn PlacementApi>>>,
}

impl SystemReplica {
    fn serve(self) -> TaskHandle {
        let consensus = self.node.consensus().clone();
        let service = PlacementService::new(self.env.clone(), consensus, self.machine, self.membership, self.tenure);
        let steward = steward::start(self.env, service.clone());
        assert!(self.placement.set(service).is_ok(), "a process has one placement service");
        steward
    }

    /// Waits until the map names this node as a voter of the system group: its leader then sends the state.
    async fn serve_when_called(self, mut maps: MapWatch) {
        let me = self.tenure.node();
        let called = |map: &Option<Arc<ClusterMap>>| {
            map.as_ref().is_some_and(|map| map.groups.get(&GroupId::SYSTEM).is_some_and(|voters| voters.contains(&me)))
        };
        if maps.wait_for(called).await.is_ok() {
            let steward = self.serve();
            steward.join().await;
        }
    }
}

impl Storage {
    /// Resolves, with what to do about it, when the process should end: this node's replicas of metadata cannot go on (only a
    /// start anew reads what the disk really holds, and until it the other replicas do the work), it is the node no more, or the
    /// cluster was recovered without it.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.metadata_failed() => {
                format!("metadata can be served no more, check the disk that holds it, then start again: {reason}")
            }
            loss = self.tenure.lost() => loss.to_string(),
            by = self.lineage.superseded() => superseded(self.lineage.own(), by),
        }
    }

    async fn metadata_failed(&self) -> String {
        let mut health = self.node.consensus().health();
        let ended = health.wait_for(|health| !matches!(health, Health::Running)).await;
        match ended.map(|health| health.clone()) {
            Ok(Health::Failed { reason }) => reason,
            // Stopped on request: that is no failure, and whoever stopped it is ending the process already.
            Ok(Health::Running | Health::Stopped) | Err(_) => std::future::pending().await,
        }
    }

    /// Hands leaderships over, flushes, closes the disks.
    pub async fn shutdown(mut self) {
        for task in self.tasks.drain(..) {
            task.stop().await;
        }
        self.node.shutdown().await;
    }
}

/// What an operator has to know when a node of the past comes back.
pub fn superseded(own: Incarnation, by: Incarnation) -> String {
    format!(
        "the cluster was recovered from the loss of its nodes and goes on as incarnation {by}, this node is of {own}. If that \
         recovery's plan kept this node, apply it here (dozo admin recover apply); if not, empty its data directories and start \
         it with --join, as a new node"
    )
}

/// A member is of the incarnation that is written down, or of the first.
async fn lineage_of(env: &Env, node_dir: &Path, membership: Option<&Membership>) -> anyhow::Result<Lineage> {
    let Some(Membership { cluster, .. }) = membership else { return Ok(Lineage::default()) };
    let (inside, dir) = (env.clone(), node_dir.to_owned());
    match env.run_blocking(move || life::read(&inside, &dir)).await? {
        Some(Life { stage: Stage::Rewriting, .. }) => bail!(
            "a recovery of this node was begun and not finished: run dozo admin recover apply once more, with the same plan"
        ),
        Some(life) if life.cluster != *cluster => bail!("{} holds the incarnation of another cluster", node_dir.display()),
        Some(life) => Ok(Lineage::member(*cluster, life.incarnation)),
        None => Ok(Lineage::member(*cluster, Incarnation::FIRST)),
    }
}

/// Becomes a member of the incarnation that was heard of, and writes it down unless it is the first.
async fn enter_life(env: &Env, node_dir: &Path, cluster: ClusterId, lineage: &Lineage) -> anyhow::Result<()> {
    let incarnation = match lineage.heard_of(cluster) {
        Incarnation::UNKNOWN => Incarnation::FIRST,
        heard => heard,
    };
    if incarnation != Incarnation::FIRST {
        let life = Life { cluster, incarnation, stage: Stage::InEffect };
        let (inside, dir) = (env.clone(), node_dir.to_owned());
        env.run_blocking(move || life::write(&inside, &dir, &life)).await?;
    }
    lineage.settle(cluster, incarnation);
    Ok(())
}

/// Block caches of production: they bound the process's memory together with the streams' windows.
const INDEX_CACHE_BYTES: usize = 32 << 20;
const STATE_CACHE_BYTES: usize = 64 << 20;

/// The stores of production.
pub fn rocks() -> KvOpeners {
    KvOpeners::rocks(INDEX_CACHE_BYTES, STATE_CACHE_BYTES)
}

/// Eight metadata groups serve up to four nodes, later four for each node.
fn groups_of(nodes: usize) -> u32 {
    u32::try_from(nodes).map_or(256, |nodes| if nodes <= 4 { 8 } else { (nodes * 4).min(256) })
}

async fn open_state(env: &Env, kv: &KvOpeners, state_dir: &Path) -> anyhow::Result<(Arc<dyn Kv>, Arc<SystemMachine>)> {
    let (open, path) = (kv.state.clone(), state_dir.join("state"));
    let shown = path.display().to_string();
    let opened = env.run_blocking(move || {
        let state = open(&path)?;
        let machine = SystemMachine::new(state.clone(), state_prefix(GroupId::SYSTEM))?;
        Ok::<_, storage_node_kv::KvError>((state, machine))
    });
    opened.await.with_context(|| format!("the metadata state in {shown} cannot be opened"))
}

/// What every new map changes at once: where replicas are, who is refused, and whether this process still is the node.
async fn learn_maps(mut maps: MapWatch, transport: Arc<RaftTransport>, peers: Option<Arc<Peers>>, tenure: Tenure) {
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            transport.learn_map(&map);
            tenure.learn_map(&map);
            if let Some(peers) = &peers {
                peers.learn_map(&map);
            }
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// Writes down which of this node's disks the cluster has removed, so that the next start does without them.
async fn forget_removed(env: Env, mut maps: MapWatch, mut dirs: DataDirs) {
    loop {
        let removed = maps.borrow_and_update().as_ref().map(|map| map.removed_disks.clone());
        if let Some(removed) = removed.filter(|removed| !removed.is_empty()) {
            let (inside, mut changed) = (env.clone(), dirs.clone());
            match env.run_blocking(move || changed.mark_removed(&inside, &removed).map(|()| changed)).await {
                Ok(changed) => dirs = changed,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "a removed disk could not be noted yet"),
            }
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// Until the map this process follows names the node: from then on it places data and finds its groups.
async fn wait_for_node(mut maps: MapWatch, node: NodeId) {
    let known = |map: &Option<Arc<ClusterMap>>| map.as_ref().is_some_and(|map| map.nodes.contains_key(&node));
    // The sender lives in the client, which outlives this wait.
    let _ = maps.wait_for(known).await;
}

/// One profile holds for the whole cluster; what a node is given after the founding means nothing, and whoever gave it may not know.
fn warn_of_other_profile(given: Option<Profile>, maps: &MapWatch) {
    let (Some(given), Some(map)) = (given, maps.borrow().clone()) else { return };
    if given != map.profile {
        tracing::warn!(
            %given, in_force = %map.profile,
            "the profile given here is not used, the cluster has one: leave it out, or change that by dozo admin apply profile"
        );
    }
}

/// How often the disks are looked at for the heartbeat.
const DISKS_INTERVAL: Duration = Duration::from_millis(500);

fn start_heartbeats(env: &Env, node: &StorageNode, client: &PlacementClient, tenure: Tenure) -> [TaskHandle; 2] {
    let latest = Arc::new(Mutex::new(DiskReport::default()));
    let reported = latest.clone();
    let (look_env, look_node) = (env.clone(), node.clone());
    let look = env.spawn("disk-health", async move {
        loop {
            let beat = look_node.heartbeat().await;
            *latest.lock() = DiskReport { full: beat.full, dead: beat.dead };
            look_env.sleep(DISKS_INTERVAL).await;
        }
    });
    let report = reporter::start(env.clone(), tenure, Arc::new(client.clone()), move || reported.lock().clone());
    [look, report]
}
