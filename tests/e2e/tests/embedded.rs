//! The embedded server under real clients.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use tests_e2e::{Server, TreeShape, digest_tree, make_tree, raw_http};

#[test]
fn boto3_users_get_what_they_put() {
    let server = Server::start(1).unwrap();
    let output = server.client().python("boto3_suite.py", &[]);
    assert!(output.is_ok(), "{}", output.unwrap_err());
}

#[test]
fn a_synced_tree_comes_back_identical_also_after_a_kill() {
    let mut server = Server::start(4).unwrap();
    let (source, back, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_tree(source.path(), TreeShape { small_files: 600, large_files: 3, large_bytes: 20 << 20 }).unwrap();
    let path = |dir: &tempfile::TempDir| dir.path().display().to_string();
    server.client().aws(&["s3", "mb", "s3://tree"]).unwrap();
    server.client().aws(&["s3", "sync", "--only-show-errors", &path(&source), "s3://tree/t/"]).unwrap();
    server.client().aws(&["s3", "sync", "--only-show-errors", "s3://tree/t/", &path(&back)]).unwrap();
    let expected = digest_tree(source.path()).unwrap();
    assert!(expected.len() > 600);
    assert_eq!(digest_tree(back.path()).unwrap(), expected);

    server.kill();
    server.restart().unwrap();
    server.client().aws(&["s3", "sync", "--only-show-errors", "s3://tree/t/", &path(&again)]).unwrap();
    assert_eq!(digest_tree(again.path()).unwrap(), expected);
    let copied = server.client().aws(&["s3", "ls", "--recursive", "s3://tree/t/"]).unwrap();
    assert_eq!(copied.lines().count(), expected.len());
    server.client().aws(&["s3", "rm", "--only-show-errors", "--recursive", "s3://tree/t/"]).unwrap();
    server.client().aws(&["s3", "rb", "s3://tree"]).unwrap();
}

#[test]
fn every_acknowledged_object_survives_kills_during_writes() {
    let mut server = Server::start(2).unwrap();
    server.client().aws(&["s3", "mb", "s3://kills"]).unwrap();
    let mut manifest = String::new();
    for round in 0..3 {
        let writer = server.client().python_start("writer.py", &["kills", &format!("r{round}/"), "4"]).unwrap();
        std::thread::sleep(Duration::from_millis(2500));
        server.kill();
        let output = writer.wait_with_output().unwrap();
        manifest.push_str(&String::from_utf8(output.stdout).unwrap());
        server.restart().unwrap();
    }
    let file = server.dir.path().join("manifest");
    std::fs::write(&file, manifest).unwrap();
    let verified = server.client().python("reader.py", &["kills", &file.display().to_string()]).unwrap();
    assert!(verified.starts_with("verified "), "{verified}");
}

#[test]
fn a_lost_disk_of_several_loses_no_object() {
    let server = Server::start(4).unwrap();
    server.client().aws(&["s3", "mb", "s3://disks"]).unwrap();
    let writer = server.client().python_start("writer.py", &["disks", "d/", "3"]).unwrap();
    let output = writer.wait_with_output().unwrap();
    let file = server.dir.path().join("manifest");
    std::fs::write(&file, &output.stdout).unwrap();
    // The segments of one disk are overwritten with zeros: every shard on it is gone.
    server.wipe(3).unwrap();
    let verified = server.client().python("reader.py", &["disks", &file.display().to_string()]).unwrap();
    assert!(verified.starts_with("verified "), "{verified}");
}

#[test]
fn one_disk_becomes_four_and_old_objects_bear_the_loss_of_the_first() {
    let mut server = Server::start(1).unwrap();
    let (source, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |dir: &tempfile::TempDir| dir.path().display().to_string();
    make_tree(source.path(), TreeShape { small_files: 60, large_files: 2, large_bytes: 20 << 20 }).unwrap();
    let expected = digest_tree(source.path()).unwrap();
    server.client().aws(&["s3", "mb", "s3://tree"]).unwrap();
    server.client().aws(&["s3", "sync", "--only-show-errors", &path(&source), "s3://tree/t/"]).unwrap();
    // What is told of one of several chunks, and one that is still being uploaded.
    let attributes = |server: &Server| {
        let call = ["s3api", "head-object", "--bucket", "tree", "--key", "t/large-0.bin", "--checksum-mode", "ENABLED"];
        server.client().aws(&call).unwrap()
    };
    let before = attributes(&server);
    let created = server.client().aws(&["s3api", "create-multipart-upload", "--bucket", "tree", "--key", "part"]).unwrap();
    let upload = created.split("\"UploadId\": \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let part = source.path().join("large-1.bin").display().to_string();
    let target = ["--bucket", "tree", "--key", "part", "--upload-id", &upload];
    let uploaded = [["s3api", "upload-part", "--part-number", "1", "--body", &part].as_slice(), &target].concat();
    let uploaded = server.client().aws(&uploaded).unwrap();
    let etag = uploaded.split("\\\"").nth(1).unwrap().to_owned();

    server.restart_with(4).unwrap();
    let writer = server.client().python_start("writer.py", &["tree", "growing/", "12"]).unwrap();
    let admin = |server: &Server, arguments: &[&str]| server.client().admin(server.admin(), arguments).unwrap();
    admin(&server, &["apply", "take-in"]);
    // What is to be coded anew is known once every group was surveyed.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let plan = admin(&server, &["plan", "profile"]);
        assert!(plan.contains("1+0 -> 2+2"), "{plan}");
        if plan.contains("codes anew") {
            break;
        }
        assert!(Instant::now() < end, "{plan}");
    }
    admin(&server, &["apply", "profile"]);
    let written = writer.wait_with_output().unwrap();
    assert!(written.stderr.is_empty(), "no write failed meanwhile: {}", String::from_utf8_lossy(&written.stderr));
    server.client().wait_settled(server.admin(), Duration::from_secs(120)).unwrap();
    let status = admin(&server, &["status"]);
    assert!(status.contains("coded 2+2: ") && !status.contains("coded 1+0: "), "{status}");
    let risk = admin(&server, &["risk"]);
    assert!(risk.contains("any one disk may fail: nothing becomes unreadable"), "{risk}");

    server.kill();
    server.wipe(0).unwrap();
    server.restart().unwrap();
    let parts = format!("Parts=[{{ETag={etag},PartNumber=1}}]");
    server
        .client()
        .aws(&[["s3api", "complete-multipart-upload", "--multipart-upload", &parts].as_slice(), &target].concat())
        .unwrap();
    assert_eq!(attributes(&server), before);
    server.client().aws(&["s3", "sync", "--only-show-errors", "s3://tree/t/", &path(&back)]).unwrap();
    assert!(digest_tree(back.path()).unwrap() == expected, "the tree is not identical");
    let again = back.path().join("again");
    server.client().aws(&["s3", "cp", "--only-show-errors", "s3://tree/part", &again.display().to_string()]).unwrap();
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&part).unwrap());
    let manifest = server.dir.path().join("manifest");
    std::fs::write(&manifest, &written.stdout).unwrap();
    let verified = server.client().python("reader.py", &["tree", &manifest.display().to_string()]).unwrap();
    assert!(verified.starts_with("verified "), "{verified}");
}

#[test]
fn sigterm_drains_and_ends_well() {
    let mut server = Server::start(1).unwrap();
    let status = server.process().terminate(Duration::from_secs(35)).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn health_and_metrics_answer() {
    let server = Server::start(1).unwrap();
    let get = |path: &str| {
        raw_http(server.admin(), format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).unwrap()
    };
    assert_eq!(get("/health/live").status(), 200);
    assert_eq!(get("/health/ready").status(), 200);
    let metrics = get("/metrics");
    assert_eq!(metrics.status(), 200);
    assert!(metrics.text.contains("dozo_"), "{}", metrics.text);
    assert_eq!(get("/admin/v1/status").status(), 403);
}

#[test]
fn the_operator_sees_disks_and_shards() {
    let server = Server::start(4).unwrap();
    let client = server.client();
    client.aws(&["s3", "mb", "s3://seen"]).unwrap();
    let file = server.dir.path().join("object");
    std::fs::write(&file, vec![7; 300_000]).unwrap();
    client.aws(&["s3", "cp", "--only-show-errors", &file.display().to_string(), "s3://seen/an object"]).unwrap();
    let status = client.dozo(&["admin", "--admin-endpoint", server.admin(), "status"]).unwrap();
    assert!(status.contains("disk"), "{status}");
    let json = client.dozo(&["admin", "--admin-endpoint", server.admin(), "--json", "explain", "s3://seen/an object"]).unwrap();
    assert!(json.contains("\"chunks\""), "{json}");
}
