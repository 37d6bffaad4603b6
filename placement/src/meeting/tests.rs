use std::collections::BTreeSet;

use placement_env::sim::{self, SimFs};
use placement_map::system::NewDisk;
use placement_types::{DiskId, TaskHandle, ZoneName};

use super::*;

/// The nodes of a test, reachable by address, with links that can be cut.
#[derive(Default)]
struct Net {
    meetings: Mutex<BTreeMap<String, Arc<Meeting>>>,
    cut: Mutex<BTreeSet<(String, String)>>,
}

struct Link {
    net: Arc<Net>,
    from: String,
    to: String,
}

impl Link {
    fn peer(&self) -> Result<Arc<Meeting>, MeetingError> {
        let unreachable = || MeetingError::Unreachable { why: "refused".into() };
        if self.net.cut.lock().contains(&(self.from.clone(), self.to.clone())) {
            return Err(unreachable());
        }
        self.net.meetings.lock().get(&self.to).cloned().ok_or_else(unreachable)
    }
}

#[async_trait]
impl MeetingApi for Link {
    async fn hello(&self, hello: Hello) -> Result<Hello, MeetingError> {
        let answer = self.peer()?.hello(hello).await?;
        // The answer may be lost, too.
        self.peer().map(|_| answer)
    }

    async fn pledge(&self, pledge: Pledge) -> Result<PledgeReply, MeetingError> {
        let reply = self.peer()?.pledge(pledge).await?;
        self.peer().map(|_| reply)
    }
}

type Ended = Arc<Mutex<Option<Result<Met, MeetError>>>>;

/// A machine that runs a node, crashes, and runs it again.
struct Host {
    net: Arc<Net>,
    fs: SimFs,
    number: u64,
    peers: Vec<String>,
    expect: u32,
    starts: u64,
    running: Option<TaskHandle>,
    ended: Ended,
}

fn address(number: u64) -> String {
    format!("node-{number}:9100")
}

impl Host {
    fn new(net: &Arc<Net>, seed: u64, number: u64, nodes: u64, expect: u32) -> Self {
        let fs = SimFs::new(seed * 100 + number);
        let peers = (1..=nodes).map(address).collect();
        Self { net: net.clone(), fs, number, peers, expect, starts: 0, running: None, ended: Ended::default() }
    }

    /// `false` when the machine halted before it came up.
    async fn start(&mut self) -> bool {
        self.starts += 1;
        let (env, _) = sim::env_on(&self.fs, self.number * 1000 + self.starts);
        let Ok(identity) = IdentityFile::load_or_create(env.clone(), "/data").await else { return false };
        let me = NewNode {
            node: identity.node(),
            address: address(self.number),
            zone: ZoneName::default(),
            disks: vec![NewDisk { disk: DiskId::from_u128(self.number.into()), capacity_bytes: 1 }],
        };
        let (net, from) = (self.net.clone(), address(self.number));
        let connect: Connect =
            Arc::new(move |to| Arc::new(Link { net: net.clone(), from: from.clone(), to: to.into() }) as Arc<dyn MeetingApi>);
        let meeting = Meeting::new(env.clone(), identity, me, Some(self.expect), self.peers.clone(), connect).unwrap();
        self.net.meetings.lock().insert(address(self.number), meeting.clone());
        self.ended = Ended::default();
        let ended = self.ended.clone();
        self.running = Some(env.spawn("meeting", async move {
            let result = meeting.run().await;
            *ended.lock() = Some(result);
        }));
        true
    }

    async fn crash(&mut self) {
        self.net.meetings.lock().remove(&address(self.number));
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.fs.crash();
    }

    async fn identity(&self) -> NodeIdentity {
        // A look at the disk as a restart would take it.
        let (env, _) = sim::env_on(&self.fs, 1);
        let bytes = env.fs.read_small("/data/node.identity".as_ref(), 1 << 20).unwrap();
        crate::identity::decode(&bytes).unwrap()
    }

    fn met(&self) -> Option<Met> {
        match &*self.ended.lock() {
            Some(Ok(met)) => Some(met.clone()),
            Some(Err(error)) => panic!("node {}: {error}", self.number),
            None => None,
        }
    }
}

async fn settle(hosts: &[Host], seconds: u64) {
    for _ in 0..seconds * 10 {
        if hosts.iter().all(|host| host.ended.lock().is_some()) {
            return;
        }
        sim::env(0).0.sleep(Duration::from_millis(100)).await;
    }
    panic!("the meeting does not end");
}

/// All are in one cluster, each under its own replica id, and one of them founds it.
fn check_one_cluster(hosts: &[Host]) {
    let met: Vec<Met> = hosts.iter().map(|host| host.met().expect("the meeting ended")).collect();
    let clusters: BTreeSet<ClusterId> = met.iter().map(|met| met.membership.cluster).collect();
    assert_eq!(clusters.len(), 1);
    let replicas: BTreeSet<u64> = met.iter().map(|met| met.membership.replica.0).collect();
    assert_eq!(replicas, (1..=hosts.len() as u64).collect());
    assert_eq!(met.iter().filter(|met| met.founding.is_some()).count(), 1);
    let group = &met[0].membership.system_group;
    assert!(met.iter().all(|met| met.membership.system_group == *group));
    assert_eq!(group.len(), hosts.len().min(3));
    let founder = met.iter().find_map(|met| met.founding.as_ref()).unwrap();
    assert!(met.iter().all(|met| met.founders == founder.nodes), "everybody knows where the others are");
}

#[tokio::test(start_paused = true)]
async fn a_single_node_founds_without_any_peer() {
    let net = Arc::default();
    let mut host = Host::new(&net, 1, 1, 0, 1);
    host.start().await;
    settle(std::slice::from_ref(&host), 1).await;
    check_one_cluster(&[host]);
}

#[tokio::test(start_paused = true)]
async fn nodes_found_one_cluster_in_whatever_order_they_start() {
    for (seed, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate() {
        let net = Arc::default();
        let mut hosts: Vec<Host> = (1..=3).map(|number| Host::new(&net, seed as u64, number, 3, 3)).collect();
        for next in order {
            hosts[next].start().await;
            sim::env(0).0.sleep(Duration::from_secs(1)).await;
        }
        settle(&hosts, 20).await;
        check_one_cluster(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_missing_is_waited_for() {
    let net = Arc::default();
    let mut hosts: Vec<Host> = (1..=3).map(|number| Host::new(&net, 5, number, 3, 3)).collect();
    hosts[0].start().await;
    hosts[1].start().await;
    sim::env(0).0.sleep(Duration::from_secs(600)).await;
    assert!(hosts.iter().all(|host| host.ended.lock().is_none()));
    hosts[2].start().await;
    settle(&hosts, 20).await;
    check_one_cluster(&hosts);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_any_node_changes_nothing() {
    for victim in 0..3 {
        for operations in 0.. {
            let net = Arc::default();
            let mut hosts: Vec<Host> = (1..=3).map(|number| Host::new(&net, 7, number, 3, 3)).collect();
            hosts[victim].fs.halt_after(operations);
            for host in &mut hosts {
                host.start().await;
            }
            sim::env(0).0.sleep(Duration::from_secs(5)).await;
            let untouched = hosts[victim].fs.operations() < operations && hosts[victim].met().is_some();
            hosts[victim].crash().await;
            assert!(hosts[victim].start().await);
            settle(&hosts, 60).await;
            check_one_cluster(&hosts);
            if untouched {
                assert!(operations > 10, "the crash was tried within the meeting");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_crash_and_lose_each_other_at_random_still_found_one_cluster() {
    for seed in 0..60 {
        let (dice, _) = sim::env(seed);
        let net: Arc<Net> = Arc::default();
        let nodes = 1 + seed % 5;
        let mut hosts: Vec<Host> = (1..=nodes).map(|number| Host::new(&net, seed, number, nodes, nodes as u32)).collect();
        for host in &mut hosts {
            host.start().await;
        }
        for _ in 0..12 {
            dice.sleep(Duration::from_millis(dice.random_below(700))).await;
            let (a, b) = (1 + dice.random_below(nodes), 1 + dice.random_below(nodes));
            match dice.random_below(3) {
                0 => drop(net.cut.lock().insert((address(a), address(b)))),
                1 => net.cut.lock().clear(),
                _ => {
                    let host = &mut hosts[a as usize - 1];
                    host.crash().await;
                    dice.sleep(Duration::from_millis(dice.random_below(500))).await;
                    host.start().await;
                }
            }
        }
        net.cut.lock().clear();
        settle(&hosts, 120).await;
        check_one_cluster(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_that_come_to_life_never_share_a_node() {
    // More peers than are expected, and links that are cut one way: several may want to found.
    let mut founded = 0;
    for seed in 0..80 {
        let (dice, _) = sim::env(seed);
        let net: Arc<Net> = Arc::default();
        let mut hosts: Vec<Host> = (1..=5).map(|number| Host::new(&net, seed, number, 5, 2)).collect();
        for _ in 0..dice.random_below(16) {
            net.cut.lock().insert((address(1 + dice.random_below(5)), address(1 + dice.random_below(5))));
        }
        for host in &mut hosts {
            host.start().await;
            dice.sleep(Duration::from_millis(dice.random_below(400))).await;
        }
        dice.sleep(Duration::from_secs(5)).await;
        net.cut.lock().clear();
        dice.sleep(Duration::from_secs(100)).await;
        let mut identities = Vec::new();
        for host in &hosts {
            identities.push(host.identity().await);
        }
        let mut owned = BTreeSet::new();
        for identity in &identities {
            let (Some(founding), Some(membership)) = (&identity.founding, &identity.membership) else { continue };
            founded += 1;
            for node in &founding.nodes {
                assert!(owned.insert(node.node), "seed {seed}: two living clusters share node {}", node.node);
                let member = identities.iter().find(|identity| identity.node == node.node).unwrap();
                assert_eq!(member.membership.as_ref().map(|member| member.cluster), Some(membership.cluster));
            }
        }
    }
    assert!(founded >= 60, "only {founded} clusters were founded");
}

#[tokio::test(start_paused = true)]
async fn with_more_peers_than_expected_and_a_whole_network_one_cluster_is_founded() {
    for seed in 0..40 {
        let (dice, _) = sim::env(seed);
        let net = Arc::default();
        let mut hosts: Vec<Host> = (1..=5).map(|number| Host::new(&net, seed, number, 5, 3)).collect();
        for host in &mut hosts {
            host.start().await;
            dice.sleep(Duration::from_millis(dice.random_below(300))).await;
        }
        settle(&hosts, 100).await;
        let is_outside = |host: &Host| matches!(&*host.ended.lock(), Some(Err(MeetError::NotPartOf { .. })));
        let (outside, inside): (Vec<Host>, Vec<Host>) = hosts.into_iter().partition(is_outside);
        assert_eq!(outside.len(), 2);
        check_one_cluster(&inside);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_outside_the_cluster_says_so() {
    let net = Arc::default();
    let mut hosts: Vec<Host> = (1..=2).map(|number| Host::new(&net, 3, number, 2, 2)).collect();
    for host in &mut hosts {
        host.start().await;
    }
    settle(&hosts, 20).await;
    let mut late = Host::new(&net, 3, 3, 2, 2);
    late.start().await;
    settle(std::slice::from_ref(&late), 90).await;
    assert!(matches!(&*late.ended.lock(), Some(Err(MeetError::NotPartOf { .. }))));
    check_one_cluster(&hosts);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_expects_another_number_is_not_counted() {
    let net = Arc::default();
    let mut hosts = [Host::new(&net, 3, 1, 2, 2), Host::new(&net, 3, 2, 2, 3)];
    for host in &mut hosts {
        host.start().await;
    }
    sim::env(0).0.sleep(Duration::from_secs(30)).await;
    assert!(hosts.iter().all(|host| host.ended.lock().is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_pledge_is_given_to_one_cluster_only_and_never_without_a_write() {
    let net = Arc::default();
    let mut host = Host::new(&net, 3, 1, 1, 2);
    host.start().await;
    let meeting = net.meetings.lock()[&address(1)].clone();
    let me = meeting.me.clone();
    let other = NewNode { node: NodeId::from_u128(9), ..me.clone() };
    let pledge = |cluster: u128| {
        let founding = Founding { cluster: ClusterId::from_u128(cluster), nodes: vec![other.clone(), me.clone()] };
        let membership = founding.membership_of(me.node).unwrap();
        Pledge { founder: other.node, membership, nodes: founding.nodes }
    };
    let mut wrong = pledge(1);
    wrong.membership.replica = ReplicaId(1);
    assert!(matches!(meeting.pledge(wrong).await, Err(MeetingError::BadMessage { .. })));
    host.fs.fail_nth_sync("/data", 1);
    assert!(matches!(meeting.pledge(pledge(1)).await, Err(MeetingError::NotWritten { .. })));
    assert!(matches!(meeting.pledge(pledge(2)).await, Err(MeetingError::NotWritten { .. })), "the disk may hold the first");
    host.crash().await;
    drop(meeting);
    host.fs.clear_faults();
    host.start().await;
    let meeting = net.meetings.lock()[&address(1)].clone();
    if host.identity().await.membership.is_none() {
        assert_eq!(meeting.pledge(pledge(1)).await, Ok(PledgeReply::Pledged));
    }
    assert_eq!(meeting.pledge(pledge(1)).await, Ok(PledgeReply::Pledged));
    assert_eq!(meeting.pledge(pledge(2)).await, Ok(PledgeReply::Taken { cluster: ClusterId::from_u128(1) }));
}
