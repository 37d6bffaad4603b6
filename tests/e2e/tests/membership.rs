//! Who is a node and who is not: copies of its directory, and nodes that were removed.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use tests_e2e::{Cluster, Process};

const SOON: Duration = Duration::from_secs(60);

fn refused(started: anyhow::Result<Process>, why: &str) {
    let error = started.err().map(|error| format!("{error:#}")).unwrap_or_else(|| panic!("it started, in spite of: {why}"));
    assert!(error.contains(why), "{error}");
}

#[test]
fn one_process_is_a_node_and_a_removed_node_is_none() {
    let mut cluster = Cluster::start(3, 1).unwrap();
    let body = cluster.dir.path().join("body");
    std::fs::write(&body, vec![7; 300_000]).unwrap();
    let body = body.display().to_string();
    cluster.client(0).aws(&["s3", "mb", "s3://kept"]).unwrap();
    let put = |cluster: &Cluster, key: &str| cluster.client(0).aws(&["s3", "cp", "--only-show-errors", &body, key]).unwrap();
    let get =
        |cluster: &Cluster, key: &str| cluster.client(0).aws(&["s3", "cp", "--only-show-errors", key, "/dev/null"]).unwrap();
    put(&cluster, "s3://kept/first");

    // A copy is noticed by itself; one that looks like the original, as of a whole disk, by the system group. The original
    // goes on undisturbed.
    let copies = cluster.dir.path().join("copies");
    cluster.copy_node_dir(0, &copies).unwrap();
    refused(cluster.start_copy(0, &copies, &[]), "is a copy of node");
    refused(cluster.start_copy(0, &copies, &["--moved"]), "runs already");
    put(&cluster, "s3://kept/second");

    // A restart is the node again, within seconds of a kill -9; the copy has not seen it and is out of date for ever.
    cluster.kill_node(0);
    let killed = Instant::now();
    cluster.start_node(0).unwrap();
    eprintln!("ready {:?} after kill -9", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    refused(cluster.start_copy(0, &copies, &["--moved"]), "out of date");

    // A copy that has seen the last run takes over while that is paused. Woken up, the original ends.
    let takeover = cluster.dir.path().join("takeover");
    cluster.node(0).signal("STOP").unwrap();
    cluster.copy_node_dir(0, &takeover).unwrap();
    let copy = cluster.start_copy(0, &takeover, &["--moved"]).unwrap();
    cluster.node(0).signal("CONT").unwrap();
    let ended = cluster.node(0).wait_end(SOON).unwrap();
    assert!(!ended.success());
    let log = cluster.node(0).log_tail();
    assert!(log.contains("another process is node"), "{log}");
    put(&cluster, "s3://kept/third");

    // A node that was removed ends, and ends again when it is started, saying what to do.
    let fourth = cluster.join_node().unwrap();
    let address = cluster.address(fourth);
    cluster.admin_command(&["apply", "remove-disk", &address]).unwrap();
    let began = Instant::now();
    while let Err(error) = cluster.admin_command(&["apply", "remove-node", &address]) {
        assert!(began.elapsed() < SOON, "{error:#}\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
    let ended = cluster.node(fourth).wait_end(SOON).unwrap();
    assert!(!ended.success());
    let why = "was removed from the cluster: start it with an empty data directory";
    let log = cluster.node(fourth).log_tail();
    assert!(log.contains(why), "{log}");
    let again = cluster.start_node(fourth).map(|()| unreachable!("a removed node started"));
    refused(again, why);

    for key in ["s3://kept/first", "s3://kept/second", "s3://kept/third"] {
        get(&cluster, key);
    }
    drop(copy);
}
