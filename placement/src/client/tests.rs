use std::collections::BTreeMap;

use placement_env::sim;
use placement_map::state::SystemState;
use placement_map::system::{NewDisk, NewNode, SystemChange};
use placement_types::{DiskId, Timestamp, TxnId, ZoneName};

use super::*;

/// Three nodes that share one state, of which one leads or none, and of which some are silent.
#[derive(Default)]
struct Group {
    state: Mutex<SystemState>,
    leader: Mutex<Option<u128>>,
    silent: Mutex<Vec<u128>>,
    /// The leader applies a proposal and loses its reply so many times.
    replies_lost: Mutex<u32>,
    calls: Mutex<u32>,
}

struct Member {
    env: Env,
    group: Arc<Group>,
    number: u128,
}

impl Member {
    async fn answer(&self) -> Result<(), PlacementError> {
        *self.group.calls.lock() += 1;
        if self.group.silent.lock().contains(&self.number) {
            self.env.sleep(Duration::from_secs(1000)).await;
        }
        let leader = *self.group.leader.lock();
        match leader {
            Some(leader) if leader == self.number => Ok(()),
            leader => Err(PlacementError::NotLeader { leader: leader.map(NodeId::from_u128) }),
        }
    }
}

#[async_trait]
impl PlacementApi for Member {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        self.answer().await?;
        let outcome = self.group.state.lock().apply(&command).0;
        let mut lost = self.group.replies_lost.lock();
        if *lost > 0 {
            *lost -= 1;
            return Err(PlacementError::Unknown { why: "deposed".into() });
        }
        Ok(outcome)
    }

    async fn bucket(&self, _name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        self.answer().await.map(|()| None)
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        self.answer().await.map(|()| Vec::new())
    }

    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        for _ in 0..10 {
            let map = self.group.state.lock().map.clone();
            match map {
                Some(map) if map.epoch > known => return Ok(Arc::new(map)),
                _ => self.env.sleep(Duration::from_secs(1)).await,
            }
        }
        self.group.state.lock().map.clone().map(Arc::new).ok_or(PlacementError::NotFormed)
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        self.answer().await?;
        Err(PlacementError::NotFormed)
    }

    async fn heartbeat(&self, _beat: Heartbeat) -> Result<(), PlacementError> {
        self.answer().await
    }
}

fn address(number: u128) -> String {
    format!("node-{number}:9100")
}

fn client(group: &Arc<Group>) -> (Env, PlacementClient) {
    let (env, _) = sim::env(1);
    let members: BTreeMap<String, Arc<dyn PlacementApi>> = (1..=3)
        .map(|number| {
            let member = Member { env: env.clone(), group: group.clone(), number };
            (address(number), Arc::new(member) as Arc<dyn PlacementApi>)
        })
        .collect();
    let connect: Connect = Arc::new(move |address| members[address].clone());
    (env.clone(), PlacementClient::new(env, connect, (1..=3).map(address).collect(), None))
}

fn command(change: SystemChange) -> SystemCommand {
    SystemCommand { txn: TxnId::from_u128(1), time: Timestamp::default(), change }
}

fn form() -> SystemChange {
    let node = |number: u128| NewNode {
        node: NodeId::from_u128(number),
        address: address(number),
        zone: ZoneName::default(),
        disks: vec![NewDisk { disk: DiskId::from_u128(number), capacity_bytes: 1 }],
    };
    let nodes = (1..=3).map(node).collect();
    SystemChange::Form { cluster: ClusterId::from_u128(1), nodes, profile: None, partitions: 16, groups: 1 }
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_found_whoever_it_is() {
    for leader in 1..=3 {
        let group: Arc<Group> = Arc::default();
        *group.leader.lock() = Some(leader);
        let (_, client) = client(&group);
        assert_eq!(client.propose(command(form())).await, Ok(SystemOutcome::Done));
        *group.calls.lock() = 0;
        client.buckets().await.unwrap();
        assert_eq!(*group.calls.lock(), 1, "the leader is remembered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_no_second_command() {
    let group: Arc<Group> = Arc::default();
    *group.leader.lock() = Some(2);
    *group.replies_lost.lock() = 2;
    let (_, client) = client(&group);
    assert_eq!(client.propose(command(form())).await, Ok(SystemOutcome::Done), "not AlreadyFormed");
}

#[tokio::test(start_paused = true)]
async fn an_election_is_waited_out() {
    let group: Arc<Group> = Arc::default();
    let (env, client) = client(&group);
    let elected = group.clone();
    let election = env.clone().spawn("election", async move {
        env.sleep(Duration::from_secs(3)).await;
        *elected.leader.lock() = Some(3);
    });
    assert_eq!(client.buckets().await, Ok(Vec::new()));
    election.join().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_nothing_happened_but_silence_is_doubt() {
    let group: Arc<Group> = Arc::default();
    let (env, client) = client(&group);
    let began = env.monotonic();
    assert_eq!(client.propose(command(form())).await, Err(PlacementError::NotLeader { leader: None }));
    assert!(env.monotonic() - began < CLIENT_DEADLINE + TRY_DEADLINE);
    *group.silent.lock() = vec![1, 2, 3];
    assert!(matches!(client.propose(command(form())).await, Err(PlacementError::Unknown { .. })));
    assert!(matches!(client.buckets().await, Err(PlacementError::Unavailable { .. })), "a read is never in doubt");
}

#[tokio::test(start_paused = true)]
async fn hints_that_lead_in_a_circle_do_not_spin() {
    let group: Arc<Group> = Arc::default();
    *group.leader.lock() = Some(1);
    let (_, client) = client(&group);
    client.propose(command(form())).await.unwrap();
    assert!(client.learn(Arc::new(group.state.lock().map.clone().unwrap())));
    // Nobody leads, and everybody believes in a node that is no member.
    *group.leader.lock() = Some(7);
    *group.calls.lock() = 0;
    assert!(client.buckets().await.is_err());
    assert!(*group.calls.lock() < 200, "{} calls in ten seconds", group.calls.lock());
}

#[tokio::test(start_paused = true)]
async fn the_map_is_followed_past_a_silent_node() {
    let group: Arc<Group> = Arc::default();
    *group.leader.lock() = Some(1);
    let (_, client) = client(&group);
    let _following = client.follow();
    client.propose(command(form())).await.unwrap();
    let mut maps = client.maps();
    assert_eq!(maps.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().epoch, Epoch(1));
    let change = SystemChange::SetNodeState { node: NodeId::from_u128(2), state: placement_map::NodeState::Down };
    let txn = TxnId::from_u128(2);
    client.propose(SystemCommand { txn, time: Timestamp::default(), change }).await.unwrap();
    let newer = maps.wait_for(|map| map.as_ref().is_some_and(|map| map.epoch == Epoch(2))).await;
    assert!(newer.is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_clusters_map_is_refused() {
    let group: Arc<Group> = Arc::default();
    let (_, client) = client(&group);
    let mut state = SystemState::default();
    state.apply(&command(form()));
    let ours = state.map.unwrap();
    assert!(client.learn(Arc::new(ours.clone())));
    assert!(!client.learn(Arc::new(ClusterMap { cluster: ClusterId::from_u128(2), epoch: Epoch(9), ..ours })));
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_less_patience_than_a_silent_node_gets_past_it() {
    for silent in 1..=3 {
        let group: Arc<Group> = Arc::default();
        *group.leader.lock() = Some(silent);
        let (env, client) = client(&group);
        client.buckets().await.unwrap();
        *group.silent.lock() = vec![silent];
        *group.leader.lock() = Some(silent % 3 + 1);
        let mut calls = 0;
        loop {
            calls += 1;
            let read = env.timeout(Duration::from_secs(1), client.buckets()).await;
            if matches!(read, Ok(Ok(_))) {
                break;
            }
            assert!(calls < 4, "the silent node is asked for ever");
        }
    }
}
