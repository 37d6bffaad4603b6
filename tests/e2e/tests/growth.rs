//! A cluster that grows, loses a node for good, gives one back, and keeps every byte; and what it refuses on the way.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use tests_e2e::{Cluster, SyncedTree, TreeShape};

const SETTLE: Duration = Duration::from_secs(120);

#[test]
fn a_cluster_grows_heals_and_shrinks_without_losing_a_byte() {
    let mut cluster = Cluster::start(4, 2).unwrap();
    let tree =
        SyncedTree::upload(&cluster.client(0), TreeShape { small_files: 120, large_files: 3, large_bytes: 18 << 20 }).unwrap();
    let compare = |cluster: &Cluster, when: &str| {
        let compared = tree.compare(&cluster.client(1));
        assert!(compared.is_ok(), "{when}: {}\n{}", compared.unwrap_err(), cluster.logs());
    };
    let refused = |cluster: &Cluster, arguments: &[&str], why: &str| {
        let error = cluster.admin_command(arguments).expect_err(why).to_string();
        assert!(error.contains(why), "{arguments:?}: {error}");
    };
    let first = cluster.address(0);
    refused(&cluster, &["apply", "drain", &first], "2+2 needs 4 disks");
    refused(&cluster, &["apply", "remove-disk", &first], "drain it first");
    cluster.admin_command(&["set", "--rebuild-after", "5s"]).unwrap();

    // Three nodes join: nothing moves before they are taken in. There are then enough to lose one and to give one back at once:
    // a shard does not return to a disk that it left a moment ago.
    let writer = cluster.client(0).python_start("writer.py", &["tree", "growing/", "20"]).unwrap();
    let [fifth, sixth, seventh] = [(); 3].map(|()| cluster.join_node().unwrap());
    let plan = cluster.admin_command(&["plan", "take-in"]).unwrap();
    assert!(plan.contains("moves ") && plan.contains("dozo admin apply take-in --layout 1"), "{plan}");
    cluster.admin_command(&["apply", "take-in", &cluster.address(fifth), "--layout", "1"]).unwrap();
    refused(&cluster, &["apply", "take-in", &cluster.address(sixth), "--layout", "1"], "the plan is stale");
    cluster.admin_command(&["apply", "take-in", &cluster.address(sixth), &cluster.address(seventh)]).unwrap();
    let acked = writer.wait_with_output().unwrap();
    assert!(acked.stdout.split(|byte| *byte == b'\n').count() > 10, "{}", String::from_utf8_lossy(&acked.stderr));
    let manifest = cluster.dir.path().join("manifest");
    std::fs::write(&manifest, &acked.stdout).unwrap();
    let manifest = manifest.display().to_string();
    cluster.wait_settled(SETTLE).unwrap();
    cluster.client(1).python("reader.py", &["tree", &manifest]).unwrap();

    // A node dies for good: its shards are rebuilt elsewhere, nobody has to do anything.
    cluster.kill_node(1);
    std::fs::remove_dir_all(cluster.node_dir(1)).unwrap();
    std::thread::sleep(Duration::from_secs(12));
    cluster.wait_settled(SETTLE).unwrap();
    let dead = cluster.address(1);
    cluster.admin_command(&["apply", "remove-disk", &dead]).unwrap();
    cluster.client(0).python("reader.py", &["tree", &manifest]).unwrap();

    // Another one is drained and removed.
    let drained = cluster.address(2);
    cluster.admin_command(&["apply", "drain", &drained]).unwrap();
    cluster.wait_settled(SETTLE).unwrap();
    let status = cluster.admin_command(&["status"]).unwrap();
    assert!(status.contains("drained") && status.contains("0 shards of objects are left there"), "{status}");
    cluster.admin_command(&["apply", "remove-disk", &drained]).unwrap();
    for node in [&dead, &drained] {
        let mut last = String::new();
        // Its replicas of metadata groups move one by one.
        let removed = (0..120).any(|_| match cluster.admin_command(&["apply", "remove-node", node]) {
            Ok(_) => true,
            Err(error) => {
                last = error.to_string();
                std::thread::sleep(Duration::from_secs(1));
                false
            }
        });
        assert!(removed, "{last}\n{}", cluster.logs());
    }
    cluster.forget_node(1);
    cluster.forget_node(2);
    cluster.wait_settled(SETTLE).unwrap();
    cluster.client(1).python("reader.py", &["tree", &manifest]).unwrap();

    // Of the four founders two are gone. Everything stops at once and comes back.
    cluster.kill_all();
    cluster.start_all().unwrap();
    // Every group has a leader again, however busy the machine is.
    cluster.wait_settled(SETTLE).unwrap();
    cluster.client(0).python("reader.py", &["tree", &manifest]).unwrap();
    cluster.client(0).aws(&["s3", "rm", "--only-show-errors", "--recursive", "s3://tree/growing/"]).unwrap();
    compare(&cluster, "after growing, healing and shrinking");
    let risk = cluster.admin_command(&["risk"]).unwrap();
    assert!(risk.contains("any one node may fail: nothing becomes unreadable"), "{risk}");
}
