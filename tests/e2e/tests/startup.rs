//! What the process says and refuses at its start.
#![allow(clippy::disallowed_methods)]

use std::process::Command;
use std::time::Duration;

use tests_e2e::{ACCESS_KEY, Client, Process, SECRET_KEY, Server, binary};

/// Runs `dozo`, which must end by itself, and returns whether it succeeded and all it printed.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new("timeout")
        .arg("20")
        .arg(binary())
        .args(arguments)
        .env_remove("DOZO_ROOT_ACCESS_KEY")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

const KEYS: [(&str, &str); 2] = [("DOZO_ROOT_ACCESS_KEY", ACCESS_KEY), ("DOZO_ROOT_SECRET_KEY", SECRET_KEY)];
const ANY_PORT: [&str; 4] = ["--s3-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];

#[test]
fn unusable_directories_are_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let refused = |data: &str, expected: &str| {
        let (ok, text) = run(&[["server", data].as_slice(), &ANY_PORT].concat(), &KEYS);
        assert!(!ok && text.contains(data) && text.to_lowercase().contains(expected), "{data}: {text}");
    };
    refused(&path("missing/deep"), "");
    std::fs::write(path("file"), b"x").unwrap();
    refused(&path("file"), "");
    std::fs::create_dir(path("foreign")).unwrap();
    std::fs::write(path("foreign/photo.jpg"), b"precious").unwrap();
    refused(&path("foreign"), "");
    assert_eq!(std::fs::read(path("foreign/photo.jpg")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(path("foreign")).unwrap().count(), 1);
}

#[test]
fn a_second_process_on_the_same_disk_is_refused() {
    let server = Server::start(1).unwrap();
    let disk = server.disk(0).display().to_string();
    let (ok, text) = run(&[["server", &disk].as_slice(), &ANY_PORT].concat(), &KEYS);
    assert!(!ok && text.contains(&disk) && text.contains("use"), "{text}");
    server.client().aws(&["s3", "ls"]).unwrap();
}

#[test]
fn known_defaults_and_short_secrets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    for (access, secret) in [("minioadmin", "minioadmin"), ("operator", "short")] {
        let keys = [("DOZO_ROOT_ACCESS_KEY", access), ("DOZO_ROOT_SECRET_KEY", secret)];
        let (ok, text) = run(&[["server", &data].as_slice(), &ANY_PORT].concat(), &keys);
        assert!(!ok && text.contains("openssl rand"), "{text}");
        assert!(!text.contains(secret) || secret == "minioadmin", "{text}");
    }
}

#[test]
fn generated_keys_are_kept_and_readable_by_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let arguments = [["server", data.to_str().unwrap()].as_slice(), &ANY_PORT].concat();
    let log = dir.path().join("log");
    let (mut process, _) = Process::start(&arguments, &[], &log, Duration::from_secs(30)).unwrap();
    process.kill();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("export AWS_ACCESS_KEY_ID=") && text.contains("export AWS_SECRET_ACCESS_KEY="), "{text}");
    let mut found = Vec::new();
    let mut pending = vec![data];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else if entry.file_name() == "root-credentials" {
                found.push(entry.metadata().unwrap().permissions().mode() & 0o777);
            }
        }
    }
    assert_eq!(found, [0o600]);
}

#[test]
fn another_profile_at_a_later_start_is_not_used_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let disks = ["a", "b", "c", "d"].map(|name| dir.path().join(name).display().to_string());
    disks.iter().for_each(|disk| std::fs::create_dir(disk).unwrap());
    let log = dir.path().join("log");
    let profile_after = |given: &str| {
        let disks: Vec<&str> = disks.iter().map(String::as_str).collect();
        let arguments = [&["server", "--profile", given], &ANY_PORT[..], &disks].concat();
        let (_process, ready) = Process::start(&arguments, &KEYS, &log, Duration::from_secs(30)).unwrap();
        let field = |name: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap().to_owned();
        let status = Client::new(&field("s3=")).dozo(&["admin", "--admin-endpoint", &field("admin="), "--json", "status"]);
        let status: serde_json::Value = serde_json::from_str(&status.unwrap()).unwrap();
        status["profile"].as_str().unwrap().to_owned()
    };
    let warning = "the profile given here is not used";
    assert_eq!(profile_after("2+2"), "2+2");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains(warning), "{said}");
    assert_eq!(profile_after("1+1"), "2+2");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains(warning), "{said}");
}

#[test]
fn config_show_redacts_secrets_and_flags_win() {
    let variables = [("DOZO_ROOT_SECRET_KEY", "not-to-be-printed-anywhere"), ("DOZO_REGION", "eu-west-1")];
    let (ok, text) = run(&["config", "show", "--zone", "rack7"], &variables);
    assert!(ok && text.contains("rack7") && text.contains("eu-west-1") && text.contains("(redacted)"), "{text}");
    assert!(!text.contains("not-to-be-printed"), "{text}");
}

#[test]
fn help_and_version_answer() {
    for arguments in [["--help"].as_slice(), &["--version"], &["server", "--help"], &["admin", "--help"], &["bench", "--help"]] {
        let (ok, text) = run(arguments, &[]);
        assert!(ok && text.contains("dozo"), "{arguments:?}: {text}");
    }
}
