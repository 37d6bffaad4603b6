//! Four storage nodes and two gateways, as in the compose file, but as processes on loopback.
#![allow(clippy::disallowed_methods)]

use tests_e2e::{Cluster, SyncedTree, TreeShape, Writer, race_creators};

#[test]
fn a_cluster_keeps_everything_through_node_and_total_failures() {
    let mut cluster = Cluster::start(4, 2).unwrap();
    let tree =
        SyncedTree::upload(&cluster.client(0), TreeShape { small_files: 200, large_files: 2, large_bytes: 20 << 20 }).unwrap();
    let compare = |cluster: &Cluster, gateway: usize, when: &str| {
        let compared = tree.compare(&cluster.client(gateway));
        assert!(compared.is_ok(), "{when}: {}\n{}", compared.unwrap_err(), cluster.logs());
    };
    compare(&cluster, 1, "through the other gateway");

    let mut manifest = String::new();
    for node in [1, 2] {
        // Writes go on while the node dies and while it is away.
        let mut writer = Writer::start(&cluster.client(0), "tree", &format!("w{node}/")).unwrap();
        writer.wait_acked(5).unwrap();
        cluster.kill_node(node);
        let went_on = writer.wait_acked(30);
        assert!(went_on.is_ok(), "{}\n{}", went_on.unwrap_err(), cluster.logs());
        manifest.push_str(&writer.stop().unwrap().acked);
        let file = cluster.dir.path().join("manifest");
        std::fs::write(&file, &manifest).unwrap();
        cluster.client(1).python("reader.py", &["tree", &file.display().to_string()]).unwrap();
        cluster.start_all().unwrap();
    }

    // Everything dies at once, in the middle of writes.
    let mut writer = Writer::start(&cluster.client(1), "tree", "all/").unwrap();
    writer.wait_acked(20).unwrap();
    cluster.kill_all();
    manifest.push_str(&writer.stop().unwrap().acked);
    cluster.start_all().unwrap();
    let file = cluster.dir.path().join("manifest");
    std::fs::write(&file, &manifest).unwrap();
    cluster.client(0).python("reader.py", &["tree", &file.display().to_string()]).unwrap();
    for prefix in ["w1/", "w2/", "all/"] {
        cluster.client(0).aws(&["s3", "rm", "--only-show-errors", "--recursive", &format!("s3://tree/{prefix}")]).unwrap();
    }
    compare(&cluster, 1, "after everything was killed at once");
}

#[test]
fn of_sixteen_racing_creators_exactly_one_wins() {
    let cluster = Cluster::start(3, 2).unwrap();
    cluster.client(0).aws(&["s3", "mb", "s3://race"]).unwrap();
    for round in 0..3 {
        let won = race_creators(&[cluster.client(0), cluster.client(1)], "race", &format!("key{round}"));
        assert!(won.is_ok(), "{}\n{}", won.unwrap_err(), cluster.logs());
    }
}
