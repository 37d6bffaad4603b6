//! The compose cluster under a docker engine: what `make cluster` brings up, under real clients, while its containers are killed,
//! frozen and cut off. `make test-cluster` runs it.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use tests_e2e::{ComposeCluster, GATEWAYS, NODES, SyncedTree, TreeShape, Writer, race_creators};

/// How long writes may stop when a node dies or falls silent: 2 to 6 seconds were measured, the rest is for a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(20);

#[test]
fn a_compose_cluster_keeps_everything_through_the_faults_of_its_containers() {
    let cluster = ComposeCluster::start().unwrap();
    let status = cluster.status().unwrap();
    for node in NODES {
        assert!(status.contains(&format!("{node}:9100")), "{status}");
    }
    let tree =
        SyncedTree::upload(&cluster.client(0), TreeShape { small_files: 300, large_files: 3, large_bytes: 20 << 20 }).unwrap();
    let compare = |gateway: usize, when: &str| {
        let compared = tree.compare(&cluster.client(gateway));
        assert!(compared.is_ok(), "{when}: {}\n{}", compared.unwrap_err(), cluster.logs());
    };
    cluster.client(0).aws(&["s3", "mb", "s3://acked"]).unwrap();
    compare(1, "through the other gateway");
    race_creators(&[cluster.client(0), cluster.client(1)], "acked", "race").unwrap();

    let mut acked = Acked::default();
    // One node after another, each once the one before is back.
    acked.write_through(&cluster, "killed1/", || cluster.kill(&["node2"]).unwrap());
    acked.read_back(&cluster, "without node2");
    compare(1, "without node2");
    cluster.start_again(&["node2"]).unwrap();
    acked.write_through(&cluster, "killed2/", || cluster.kill(&["node3"]).unwrap());
    acked.read_back(&cluster, "without node3");
    compare(1, "without node3");
    cluster.start_again(&["node3"]).unwrap();

    // Nodes that neither answer nor hang up.
    acked.write_through(&cluster, "frozen/", || cluster.pause("node4").unwrap());
    acked.read_back(&cluster, "while node4 is frozen");
    cluster.unpause("node4").unwrap();
    acked.write_through(&cluster, "cut-off/", || cluster.disconnect("node1").unwrap());
    acked.read_back(&cluster, "while node1 is cut off");
    cluster.connect("node1").unwrap();

    // Everything at once, in the middle of writes.
    let all: Vec<&str> = NODES.iter().chain(&GATEWAYS).copied().collect();
    let mut writer = Writer::start(&cluster.client(0), "acked", "all/").unwrap();
    writer.wait_acked(50).unwrap();
    cluster.kill(&all).unwrap();
    acked.manifest.push_str(&writer.stop().unwrap().acked);
    cluster.start_again(&all).unwrap();
    acked.read_back(&cluster, "after everything was killed at once");
    compare(0, "after everything was killed at once");
    cluster.down().unwrap();
}

/// Everything that was acknowledged so far.
#[derive(Default)]
struct Acked {
    manifest: String,
}

impl Acked {
    /// Writes through both gateways while `fault` strikes: writes go on, and no acknowledgement is waited for too long.
    fn write_through(&mut self, cluster: &ComposeCluster, prefix: &str, fault: impl FnOnce()) {
        let mut writers =
            [0, 1].map(|gateway| Writer::start(&cluster.client(gateway), "acked", &format!("{prefix}{gateway}-")).unwrap());
        let mut wait_acked = |more: usize| {
            for writer in &mut writers {
                let acked = writer.wait_acked(more);
                assert!(acked.is_ok(), "{prefix}: {}\n{}", acked.unwrap_err(), cluster.logs());
            }
        };
        wait_acked(10);
        fault();
        // Objects of every size, and of every group that the node may have led.
        wait_acked(60);
        for writer in writers {
            let written = writer.stop().unwrap();
            let (count, pause) = (written.count, written.pause_max);
            println!("{prefix}: {count} acknowledged, the longest pause {pause:?}, {} failed", written.errors.lines().count());
            assert!(pause < PAUSE_MAX, "{prefix}: writes stopped for {pause:?}: {}\n{}", written.errors, cluster.logs());
            self.manifest.push_str(&written.acked);
        }
    }

    fn read_back(&self, cluster: &ComposeCluster, when: &str) {
        let file = cluster.dir.path().join("manifest");
        std::fs::write(&file, &self.manifest).unwrap();
        let read = cluster.client(1).python("reader.py", &["acked", &file.display().to_string()]);
        assert!(read.is_ok(), "{when}: {}\n{}", read.unwrap_err(), cluster.logs());
    }
}
