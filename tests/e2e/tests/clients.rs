//! What people run against an S3 server besides the aws cli and boto3: each takes a tree in and gives it back.
#![allow(clippy::disallowed_methods)]

use tempfile::TempDir;
use tests_e2e::{Server, TreeShape, digest_tree, make_tree};

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_tree(dir.path(), TreeShape { small_files: 60, large_files: 2, large_bytes: 12 << 20 }).unwrap();
    dir
}

fn path(dir: &TempDir) -> String {
    dir.path().display().to_string()
}

#[test]
fn rclone_syncs_and_checks_with_both_listings() {
    let server = Server::start(1).unwrap();
    let client = server.client();
    let source = tree();
    let expected = digest_tree(source.path()).unwrap();
    for version in ["1", "2"] {
        let rclone = |arguments: &[&str]| client.rclone(&[&["--s3-list-version", version][..], arguments].concat()).unwrap();
        let (remote, back) = (format!("dozo:rclone-{version}"), tempfile::tempdir().unwrap());
        rclone(&["mkdir", &remote]);
        // The large files in parts.
        rclone(&["sync", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", &path(&source), &format!("{remote}/t")]);
        rclone(&["check", "--download", &path(&source), &format!("{remote}/t")]);
        // Copies within the server, of large files by parts; the listing of both must agree in names, sizes and times.
        rclone(&["copy", "--s3-copy-cutoff", "6M", &format!("{remote}/t"), &format!("{remote}/copy")]);
        rclone(&["check", &format!("{remote}/t"), &format!("{remote}/copy")]);
        rclone(&["sync", &format!("{remote}/copy"), &path(&back)]);
        assert_eq!(digest_tree(back.path()).unwrap(), expected);
        let listed = rclone(&["lsf", "--recursive", "--files-only", &format!("{remote}/t")]);
        assert_eq!(listed.lines().count(), expected.len());
        rclone(&["delete", &remote]);
        assert_eq!(rclone(&["lsf", "--recursive", "--files-only", &remote]), "");
    }
}

#[test]
fn restic_backs_up_checks_and_restores() {
    let server = Server::start(1).unwrap();
    let client = server.client();
    let (source, back) = (tree(), tempfile::tempdir().unwrap());
    let restic = |arguments: &[&str]| client.restic("restic", arguments).unwrap();
    restic(&["init"]);
    restic(&["backup", "--quiet", &path(&source)]);
    std::fs::write(source.path().join("later"), "not in the first snapshot").unwrap();
    restic(&["backup", "--quiet", &path(&source)]);
    restic(&["forget", "--keep-last", "1", "--prune"]);
    restic(&["check", "--read-data"]);
    restic(&["restore", "latest", "--target", &path(&back)]);
    let restored = back.path().join(source.path().strip_prefix("/").unwrap());
    assert_eq!(digest_tree(&restored).unwrap(), digest_tree(source.path()).unwrap());
}

#[test]
fn s3cmd_without_a_region_puts_syncs_moves_and_deletes() {
    let server = Server::start(1).unwrap();
    let client = server.client();
    let s3cmd = |arguments: &[&str]| client.s3cmd(arguments).unwrap();
    let (source, back) = (tree(), tempfile::tempdir().unwrap());
    let expected = digest_tree(source.path()).unwrap();
    s3cmd(&["mb", "s3://s3cmd"]);
    s3cmd(&["sync", "--multipart-chunk-size-mb=5", &format!("{}/", path(&source)), "s3://s3cmd/t/"]);
    s3cmd(&["sync", "s3://s3cmd/t/", &format!("{}/", path(&back))]);
    assert_eq!(digest_tree(back.path()).unwrap(), expected);
    assert_eq!(s3cmd(&["ls", "--recursive", "s3://s3cmd/t/"]).lines().count(), expected.len());

    s3cmd(&["mv", "s3://s3cmd/t/large-0.bin", "s3://s3cmd/moved"]);
    let moved = back.path().join("moved");
    s3cmd(&["get", "s3://s3cmd/moved", &moved.display().to_string()]);
    assert_eq!(blake3::hash(&std::fs::read(moved).unwrap()), expected["large-0.bin"]);
    assert!(s3cmd(&["info", "s3://s3cmd/moved"]).contains("MIME type"));
    s3cmd(&["del", "--recursive", "--force", "s3://s3cmd"]);
    s3cmd(&["rb", "s3://s3cmd"]);
}
