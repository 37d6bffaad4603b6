//! A server whose disks rot and lose files while it runs: nobody reads a wrong byte, and everything is put right again.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests_e2e::{Server, TreeShape, digest_tree, make_tree, raw_http};

const DISKS: usize = 4;
const WHOLE_AGAIN: Duration = Duration::from_secs(120);

/// Runs `dozo admin`.
fn admin(server: &Server, arguments: &[&str]) -> anyhow::Result<String> {
    server.client().dozo(&[&["admin", "--admin-endpoint", server.admin()], arguments].concat())
}

fn segments(server: &Server, disk: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.disk(disk).join("disk/segments")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What a segment holds before the room that is kept for more.
fn written(path: &PathBuf) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

fn flip(path: &PathBuf, at: usize, byte: u8) {
    File::options().write(true).open(path).unwrap().write_all_at(&[!byte], at as u64).unwrap();
}

/// Verifies until all is whole; returns the last answer.
fn wait_whole(server: &Server, target: &str) -> String {
    let end = Instant::now() + WHOLE_AGAIN;
    loop {
        match admin(server, &["verify", target]) {
            Ok(summary) => return summary,
            Err(error) => {
                assert!(Instant::now() < end, "{error:#}\n{}", fs::read_to_string(server.dir.path().join("server.log")).unwrap())
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn rot_and_lost_files_are_found_and_repaired_and_what_cannot_be_is_named() {
    let server = Server::start(DISKS).unwrap();
    let client = server.client();
    let source = tempfile::tempdir().unwrap();
    make_tree(source.path(), TreeShape { small_files: 60, large_files: 2, large_bytes: 18 << 20 }).unwrap();
    let text = |path: &std::path::Path| path.display().to_string();
    client.aws(&["s3", "mb", "s3://tree"]).unwrap();
    client.aws(&["s3", "sync", "--only-show-errors", &text(source.path()), "s3://tree/t/"]).unwrap();
    let kept = text(&server.dir.path().join("summary.json"));
    let summary = admin(&server, &["verify", "s3://tree/t/", "--output", &kept]).unwrap();
    let expected = digest_tree(source.path()).unwrap();
    assert!(summary.contains(&format!("objects: {}, ", expected.len())) && summary.contains("bad: 0, unknown: 0"), "{summary}");

    // Every shard on one disk rots, and another disk loses a file, all under the running server.
    let mut flipped = 0;
    for path in segments(&server, 0) {
        let bytes = written(&path);
        for at in (3000..bytes.len()).step_by(40_000) {
            flip(&path, at, bytes[at]);
            flipped += 1;
        }
    }
    assert!(flipped > 100, "{flipped}");
    fs::remove_file(&segments(&server, 1)[0]).unwrap();
    let back = tempfile::tempdir().unwrap();
    client.aws(&["s3", "sync", "--only-show-errors", "s3://tree/t/", &text(back.path())]).unwrap();
    assert!(digest_tree(back.path()).unwrap() == expected, "what is read is what was written");
    let again = wait_whole(&server, "s3://tree/t/");
    let root = |summary: &str| summary.lines().find(|line| line.starts_with("root: ")).unwrap().to_owned();
    assert_eq!(root(&again), root(&summary), "the same objects");
    let metrics = raw_http(server.admin(), b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap().text;
    let counted = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(counted("dozo_bitrot_detected_total") > 0.0 && counted("dozo_shards_repaired_total") > 0.0);
    let end = Instant::now() + WHOLE_AGAIN;
    loop {
        let status = admin(&server, &["status"]).unwrap();
        if status.contains("in quarantine 0") && status.contains("every shard is where it belongs") {
            break;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_millis(500));
    }

    // The summary can be checked later, and not be changed.
    assert!(admin(&server, &["verify", "--check", &kept]).unwrap().contains("the signature is right"));
    let changed = fs::read_to_string(&kept).unwrap().replace("\"objects\": ", "\"objects\": 1");
    fs::write(&kept, changed).unwrap();
    assert!(admin(&server, &["verify", "--check", &kept]).unwrap_err().to_string().contains("the signature is wrong"));
    let error = admin(&server, &["verify", "s3://nothing-here"]).unwrap_err().to_string();
    assert!(error.contains("bucket"), "{error}");

    lose_an_object(&server);
    assert!(wait_whole(&server, "s3://tree/t/").contains("bad: 0, unknown: 0"), "the others are none the worse");
}

/// One shard more rots than the code can bear: that is an error and never other bytes, and it is named.
fn lose_an_object(server: &Server) {
    let client = server.client();
    let file = server.dir.path().join("object");
    fs::write(&file, (0..900_000_u32).map(|at| (at * 7 % 251) as u8).collect::<Vec<u8>>()).unwrap();
    client.aws(&["s3", "cp", "--only-show-errors", &file.display().to_string(), "s3://tree/lost"]).unwrap();
    let explained: Value = serde_json::from_str(&admin(server, &["--json", "explain", "s3://tree/lost"]).unwrap()).unwrap();
    let chunk = &explained["versions"][0]["data"]["records"][0]["chunks"][0];
    let shards = chunk["shards"].as_array().unwrap();
    let parity = shards.iter().filter(|shard| shard["kind"] == "parity").count();
    let id = chunk["chunk"].as_str().unwrap();
    let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut rotten = 0;
    for path in (0..DISKS).flat_map(|disk| segments(server, disk)) {
        let bytes = written(&path);
        // A shard's id stands 7 bytes into its record's header of 160.
        for at in bytes.windows(id.len()).enumerate().filter(|(_, window)| *window == id).map(|(at, _)| at + 153 + 5) {
            if rotten <= parity && bytes.get(at - 158 - 7..at - 158 - 3) == Some(b"DZRC".as_slice()) {
                flip(&path, at, bytes[at]);
                rotten += 1;
            }
        }
    }
    assert_eq!(rotten, parity + 1);
    let read = server.dir.path().join("read");
    // Of the clients it is the one that does not ask again and again.
    assert!(client.rclone(&["copyto", "dozo:tree/lost", &read.display().to_string()]).is_err());
    assert!(!read.exists(), "no byte of it was taken for the object");
    let error = admin(server, &["verify", "s3://tree"]).unwrap_err().to_string();
    assert!(
        error.contains("CORRUPT: lost") && error.contains("LOST: lost") && error.contains("not everything is whole"),
        "{error}"
    );
}
