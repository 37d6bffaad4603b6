//! Two of four nodes are gone for ever, and with them the majority of half the metadata groups: the cluster comes back by
//! `dozo admin recover` with everything that was acknowledged, and refuses what was declared gone.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use serde_json::Value;
use tests_e2e::{Cluster, Process, SyncedTree, TreeShape};

const PATIENCE: Duration = Duration::from_secs(60);

/// The id of the node at an address.
fn node_id(cluster: &Cluster, node: usize) -> String {
    let status: Value = serde_json::from_str(&cluster.admin_command(&["--json", "status"]).unwrap()).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let found = nodes.iter().find(|entry| entry["address"] == cluster.address(node)).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

fn wait_for_copy(cluster: &Cluster, node: usize) {
    let dir = cluster.node_dir(node).join("node/backup");
    let began = Instant::now();
    while std::fs::read_dir(&dir).map_or(0, |entries| entries.count()) == 0 {
        assert!(began.elapsed() < PATIENCE, "no copy of the cluster's state in {}\n{}", dir.display(), cluster.logs());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn refused(started: anyhow::Result<Process>, why: &str) {
    let error = started.err().map(|error| format!("{error:#}")).unwrap_or_else(|| panic!("it started, in spite of: {why}"));
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_cluster_without_its_majority_is_brought_back_and_refuses_what_was_gone() {
    let mut cluster = Cluster::start(4, 1).unwrap();
    let tree =
        SyncedTree::upload(&cluster.client(0), TreeShape { small_files: 60, large_files: 1, large_bytes: 18 << 20 }).unwrap();
    let compare = |cluster: &Cluster, when: &str| {
        let compared = tree.compare(&cluster.client(0));
        assert!(compared.is_ok(), "{when}: {}\n{}", compared.unwrap_err(), cluster.logs());
    };
    // Every node gets one, also the one that does not vote in the system group.
    (0..4).for_each(|node| wait_for_copy(&cluster, node));
    let [lost, dead] = [0, 1].map(|node| node_id(&cluster, node));
    let dir = |cluster: &Cluster, node: usize| cluster.node_dir(node).display().to_string();
    let running = cluster.offline(&["admin", "recover", "inspect", &dir(&cluster, 2)]).unwrap_err().to_string();
    assert!(running.contains("stop the node first"), "{running}");

    // Two nodes are gone for ever, but for an image of the first that somebody kept. There is one of another node, too.
    cluster.kill_all();
    let images = cluster.dir.path().join("images");
    cluster.copy_node_dir(0, &images).unwrap();
    cluster.copy_node_dir(2, &images).unwrap();
    for node in [0, 1] {
        std::fs::remove_dir_all(cluster.node_dir(node)).unwrap();
        cluster.forget_node(node);
    }
    let file = |name: &str| cluster.dir.path().join(name).display().to_string();
    let (plan, reports) = (file("plan"), [file("report2"), file("report3")]);
    for (node, report) in [2, 3].into_iter().zip(&reports) {
        let shown = cluster.offline(&["admin", "recover", "inspect", &dir(&cluster, node), "--out", report]).unwrap();
        assert!(shown.contains("copy of the system group: epoch"), "{shown}");
    }
    let make = |gone: &[&str], used: &[String]| {
        let mut arguments = vec!["admin", "recover", "plan", "--out", &plan];
        used.iter().for_each(|report| arguments.extend(["--report", report]));
        gone.iter().for_each(|node| arguments.extend(["--gone", node]));
        cluster.offline(&arguments)
    };
    let incomplete = make(&[&lost], &reports).unwrap_err().to_string();
    assert!(incomplete.contains("was not inspected"), "{incomplete}");
    let shown = make(&[&lost, &dead], &reports).unwrap();
    assert!(shown.contains("gone for ever") && shown.contains("becomes the only voter"), "{shown}");
    assert!(!shown.contains("no replica is left"), "{shown}");
    for node in [2, 3] {
        let dir = dir(&cluster, node);
        let apply = ["admin", "recover", "apply", &dir, "--plan", &plan];
        assert!(cluster.offline(&apply).unwrap().contains("nothing was changed"));
        let accepted = [&apply[..], &["--accept-loss"]].concat();
        assert!(cluster.offline(&accepted).unwrap().contains("done."));
        assert!(cluster.offline(&accepted).unwrap().contains("applied to the node before"));
    }
    cluster.start_all().unwrap();
    compare(&cluster, "after the recovery");

    // The images come back: they are told what they are, and do nothing.
    refused(cluster.start_copy(0, &images, &["--moved"]), "was removed from the cluster");
    refused(cluster.start_copy(2, &images, &["--moved"]), "the cluster was recovered from the loss of its nodes");
    std::fs::remove_dir_all(&images).unwrap();

    // Two new nodes take the places. Metadata has three replicas again, by itself, and writes go on.
    for _ in 0..2 {
        let joined = cluster.join_node();
        assert!(joined.is_ok(), "{:#}\n{}", joined.unwrap_err(), cluster.logs());
    }
    cluster.admin_command(&["apply", "take-in"]).unwrap();
    cluster.wait_voters(3, PATIENCE).unwrap();
    let written = tree.sync_to(&cluster.client(0), "s3://tree/again/");
    assert!(written.is_ok(), "{}\n{}", written.unwrap_err(), cluster.logs());
    cluster.client(0).aws(&["s3", "rm", "--only-show-errors", "--recursive", "s3://tree/again/"]).unwrap();
    compare(&cluster, "with new nodes");
}
