use proptest::prelude::*;

use super::*;
use crate::state::SystemState;
use crate::state::tests::formed;

const CLUSTER: ClusterId = ClusterId::from_u128(0xc1);

const DRAWN: Drawn = Drawn { incarnation: 5, txn: TxnId::from_u128(77), time: Timestamp::from_millis(8) };

fn node(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

/// Four nodes; the system group on the first three, group 1 on 2, 3, 4, group 2 on 3, 4, 1.
const GROUPS: [(u32, [u64; 3]); 3] = [(0, [1, 2, 3]), (1, [2, 3, 4]), (2, [3, 4, 1])];

fn known() -> KnownCluster {
    let nodes = (1..=4u64).map(|number| KnownNode {
        node: node(number.into()),
        replica: ReplicaId(number),
        address: format!("node-{number}:9100"),
    });
    KnownCluster { epoch: Epoch(7), nodes: nodes.collect(), groups: GROUPS.map(|(group, _)| GroupId(group)).into() }
}

fn replica(group: u32, voters: [u64; 3], last: (u64, u64)) -> ReplicaReport {
    ReplicaReport {
        group: GroupId(group),
        term: Term(last.0),
        last: LogPlace { term: last.0, index: last.1 },
        committed: last.1,
        applied: last.1,
        voters: voters.map(ReplicaId).into(),
        voters_outgoing: Vec::new(),
        members_open: false,
        newest: Some(Timestamp::from_millis(last.1)),
    }
}

/// A node with the replicas it should have, their logs ending at its own number in term 3.
fn report(number: u64) -> NodeReport {
    let has = |(_, voters): &&(u32, [u64; 3])| voters.contains(&number);
    NodeReport {
        cluster: CLUSTER,
        incarnation: Incarnation::FIRST,
        node: node(number.into()),
        replica: ReplicaId(number),
        replicas: GROUPS.iter().filter(has).map(|(group, voters)| replica(*group, *voters, (3, 100 + number))).collect(),
        known: (number <= 3).then(known),
        copy: None,
    }
}

fn copied(mut report: NodeReport, place: (u64, u64)) -> NodeReport {
    let place = LogPlace { term: place.0, index: place.1 };
    report.copy = Some(CopyReport { place, taken: Timestamp::from_millis(9), known: known() });
    report
}

fn made(reports: &[NodeReport], gone: &[u128]) -> Result<RecoveryPlan, NoPlan> {
    plan(reports, &gone.iter().copied().map(node).collect(), DRAWN)
}

fn fate(plan: &RecoveryPlan, group: u32) -> &Fate {
    &plan.fates.iter().find(|(id, _)| *id == GroupId(group)).unwrap().1
}

#[test]
fn the_last_replicas_go_on_alone_and_majorities_as_they_are() {
    let plan = made(&[report(3), report(4)], &[1, 2]).unwrap();
    let alone = |number: u128| Fate::Alone {
        node: node(number),
        last: LogPlace { term: 3, index: 100 + number as u64 },
        newest: Some(Timestamp::from_millis(100 + number as u64)),
    };
    assert_eq!(*fate(&plan, 0), alone(3));
    assert_eq!((fate(&plan, 1), fate(&plan, 2)), (&Fate::Whole {}, &Fate::Whole {}));
    assert_eq!(plan.steps_of(node(3)).unwrap().steps, [Step::Alone { group: GroupId(0), after: Term(3) }]);
    assert_eq!(plan.steps_of(node(4)).unwrap().steps, []);
    assert_eq!(plan.incarnation.number(), 2);
    let plan = made(&[report(1), report(2)], &[3, 4]).unwrap();
    assert_eq!((fate(&plan, 0), fate(&plan, 1), fate(&plan, 2)), (&alone(2), &alone(2), &alone(1)));
    // The system group had a majority. It goes on alone all the same, and the other replica is dropped.
    assert_eq!(plan.steps_of(node(1)).unwrap().steps[0], Step::Forget { group: GroupId(0) });
    assert_eq!(
        plan.command().change,
        SystemChange::Recover {
            gone: vec![node(3), node(4)],
            alone: vec![(GroupId(0), node(2)), (GroupId(1), node(2)), (GroupId(2), node(1))],
        }
    );
}

#[test]
fn of_several_replicas_the_most_advanced_log_is_taken() {
    // Term before index: entries of a later leader are there to stay.
    let mut reports = [report(1), report(2)];
    reports[0].replicas[0].last = LogPlace { term: 4, index: 50 };
    let plan = made(&reports, &[3, 4]).unwrap();
    assert!(matches!(fate(&plan, 0), Fate::Alone { node: chosen, .. } if *chosen == node(1)));
    // A change of members that may have been made: nobody can say whether these two are a majority.
    let mut reports = [report(3), report(4)];
    reports[1].replicas[0].members_open = true;
    let plan = made(&reports, &[1, 2]).unwrap();
    assert!(matches!(fate(&plan, 1), Fate::Alone { node: chosen, .. } if *chosen == node(4)));
    assert!(plan.steps_of(node(3)).unwrap().steps.contains(&Step::Forget { group: GroupId(1) }));
    // In the middle of a change, both the old and the new members must have a majority.
    let mut reports = [report(3), report(4)];
    reports[1].replicas[0].voters_outgoing = [1, 2, 3].map(ReplicaId).into();
    assert!(matches!(fate(&made(&reports, &[1, 2]).unwrap(), 1), Fate::Alone { .. }));
}

#[test]
fn the_system_group_comes_back_from_a_copy_and_others_do_not() {
    let plan = made(&[copied(report(4), (2, 80))], &[1, 2, 3]).unwrap();
    assert!(matches!(fate(&plan, 0), Fate::Founded { node: chosen, .. } if *chosen == node(4)));
    let steps = &plan.steps_of(node(4)).unwrap().steps;
    assert!(matches!(steps[0], Step::Found { at, .. } if at.term > 2 && at.index >= 80 + NUMBERS_SKIPPED));
    assert!(matches!(fate(&plan, 2), Fate::Alone { .. }));
    let mut bare = copied(report(4), (2, 80));
    bare.replicas.clear();
    let plan = made(&[bare], &[1, 2, 3]).unwrap();
    assert_eq!((fate(&plan, 1), fate(&plan, 2)), (&Fate::Lost {}, &Fate::Lost {}));
    // A copy from a replica that had more than the one that is left wins over it.
    let plan = made(&[report(3), copied(report(4), (3, 104))], &[1, 2]).unwrap();
    assert!(matches!(fate(&plan, 0), Fate::Founded { node: chosen, .. } if *chosen == node(4)));
    assert_eq!(plan.steps_of(node(3)).unwrap().steps, [Step::Forget { group: GroupId(0) }]);
    let plan = made(&[report(3), copied(report(4), (3, 103))], &[1, 2]).unwrap();
    assert!(matches!(fate(&plan, 0), Fate::Alone { .. }));
}

#[test]
fn what_is_missing_or_contradicts_is_refused() {
    assert_eq!(made(&[], &[1]), Err(NoPlan::NoReports));
    assert_eq!(made(&[report(3), report(3)], &[1, 2, 4]), Err(NoPlan::Twice { node: node(3) }));
    assert_eq!(made(&[report(4)], &[1, 2, 3]), Err(NoPlan::NoSystemGroup));
    let missing = NoPlan::Unaccounted { node: node(4), address: "node-4:9100".into() };
    assert_eq!(made(&[report(3)], &[1, 2]), Err(missing));
    assert_eq!(made(&[report(3), report(4)], &[1, 2, 4]), Err(NoPlan::NotGone { node: node(4) }));
    assert_eq!(made(&[report(3), report(4)], &[1, 2, 9]), Err(NoPlan::UnknownGone { node: node(9) }));
    assert_eq!(made(&[report(1), report(2), report(3)], &[4]), Err(NoPlan::NothingLost));
    let mut stranger = report(4);
    stranger.node = node(5);
    assert_eq!(made(&[report(3), stranger], &[1, 2, 4]), Err(NoPlan::UnknownNode { node: node(5) }));
    let mut foreign = report(4);
    foreign.cluster = ClusterId::from_u128(2);
    assert!(matches!(made(&[report(3), foreign], &[1, 2]), Err(NoPlan::OtherCluster { .. })));
    let mut later = report(4);
    later.incarnation = Incarnation::FIRST.next(5);
    assert!(matches!(made(&[report(3), later], &[1, 2]), Err(NoPlan::OtherIncarnation { .. })));
}

#[test]
fn the_map_goes_on_without_what_is_gone() {
    let before = formed(4, 2, "2+2");
    let mut state = SystemState::with_map(before.clone());
    let alone: Vec<(GroupId, NodeId)> = before
        .groups
        .iter()
        .filter_map(|(group, voters)| {
            let left: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter > node(2)).collect();
            (left.len() < 2 || *group == GroupId::SYSTEM).then(|| (*group, left[0]))
        })
        .collect();
    let change = SystemChange::Recover { gone: vec![node(1), node(2)], alone: alone.clone() };
    let command = SystemCommand { txn: TxnId::from_u128(77), time: Timestamp::default(), change };
    state.apply(&command);
    let map = state.map.clone().unwrap();
    map.check().unwrap();
    assert_eq!(map.removed_nodes, BTreeSet::from([node(1), node(2)]));
    assert_eq!((map.nodes.len(), map.disks.len(), map.removed_disks.len()), (2, 4, 4));
    assert!(map.epoch > before.epoch && map.next_replica.0 >= before.next_replica.0 + NUMBERS_SKIPPED);
    for (group, voters) in &map.groups {
        let survivor = alone.iter().find(|(decided, _)| decided == group).map(|(_, on)| *on);
        assert!(survivor.is_none_or(|on| voters[0] == on), "whoever goes on is the first of them");
        assert_eq!(voters.len(), 2, "and the other node that is left joins it");
        assert!(map.moved_groups.contains(group));
    }
    assert!(map.ring.rows.iter().all(|row| row.len() == 4));
    // The node on which the plan was made a second time proposes it a second time.
    state.apply(&command);
    assert_eq!(state.map.as_ref(), Some(&map));
    assert!(recovered(&map, &[], &[(GroupId(1), node(3))]).is_err(), "the system group must go on somewhere");
    assert!(recovered(&map, &[node(3)], &[(GroupId::SYSTEM, node(3))]).is_err());
}

#[test]
fn reports_and_plans_round_trip() {
    let report = copied(report(3), (3, 200));
    assert_eq!(NodeReport::from_versioned(&report.to_versioned()), Ok(report.clone()));
    let plan = made(&[report, self::report(4)], &[1, 2]).unwrap();
    assert_eq!(RecoveryPlan::from_versioned(&plan.to_versioned()), Ok(plan));
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_plan(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = NodeReport::from_versioned(&bytes);
        let _ = RecoveryPlan::from_versioned(&bytes);
    }
}
