//! `dozo admin verify`: has every shard of a bucket, or of a prefix in it, read and checked, and signs what came of it.
//!
//! The summary is one line of JSON with its fields in a fixed order, and a keyed BLAKE3 over exactly that line. The key is
//! derived from the secret key the command signs its requests with. So the signature says that somebody who knew the secret
//! made this summary and that nobody who does not has changed it since; it says nothing to those who are not to know the
//! secret, and nothing about what happened to the data after the time in it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use placement_types::Env;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ask;
use super::print::{list, size, text};
use crate::client::S3Client;

/// A summary is some 700 bytes, and up to [`BAD_LISTED_MAX`] findings.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Findings that a summary lists; all are counted, and printed as they come.
const BAD_LISTED_MAX: usize = 10_000;

/// How often a page is asked for again when no reply came: a gateway may be restarted in the middle.
const PAGE_TRIES_MAX: u32 = 5;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// s3://bucket or s3://bucket/prefix
    #[arg(required_unless_present = "check", conflicts_with = "check")]
    target: Option<String>,

    /// Write the signed summary to a file
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,

    /// Check the signature of a summary that was written before, and show it
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// What a verification came to. What is signed is this, as JSON, field by field in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Summary {
    format: u32,
    cluster: String,
    bucket: String,
    prefix: String,
    began_ms: u64,
    ended_ms: u64,
    /// Versions that are objects, and delete markers.
    objects: u64,
    delete_markers: u64,
    bytes: u64,
    oldest_ms: Option<u64>,
    newest_ms: Option<u64>,
    /// BLAKE3 over the versions in the order of their keys, each with its id, length, time and ETag.
    root: String,
    /// Findings that say that something is wrong, and those that say that it is not known.
    bad: u64,
    unknown: u64,
    findings: Vec<Value>,
}

/// A summary as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Signed {
    summary: Summary,
    access_key: String,
    signature: String,
}

impl Summary {
    fn is_clean(&self) -> bool {
        self.bad == 0 && self.unknown == 0
    }

    fn signature(&self, access_key: &str, secret_key: &str) -> String {
        let key = blake3::derive_key("dozo admin verify summary v1", secret_key.as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(access_key.as_bytes());
        hasher.update(b"\n");
        hasher.update(&serde_json::to_vec(self).expect("a summary is plain data"));
        hasher.finalize().to_string()
    }
}

/// Verifies, prints and signs; an error when anything is bad or unknown.
pub(super) async fn run(args: &VerifyArgs, env: &Env, client: &S3Client, keys: (&str, &str), json: bool) -> anyhow::Result<()> {
    if let Some(file) = &args.check {
        return check(file, env, keys, json);
    }
    let target = args.target.as_deref().expect("it is required without --check");
    let (bucket, prefix) = parse_target(target)?;
    let summary = verify(env, client, bucket, prefix, json).await?;
    let signed = Signed { access_key: keys.0.to_owned(), signature: summary.signature(keys.0, keys.1), summary };
    let document = serde_json::to_string_pretty(&signed)?;
    if let Some(output) = &args.output {
        env.fs
            .replace_durably(output, format!("{document}\n").as_bytes())
            .with_context(|| format!("cannot write {}", output.display()))?;
    }
    if json {
        println!("{document}");
    } else {
        println!("{}", signed.summary);
        println!("signature: {} (by {})", signed.signature, signed.access_key);
    }
    verdict(&signed.summary)
}

fn verdict(summary: &Summary) -> anyhow::Result<()> {
    if summary.is_clean() {
        return Ok(());
    }
    bail!("not everything is whole: {} findings are bad, {} unknown", summary.bad, summary.unknown)
}

fn parse_target(target: &str) -> anyhow::Result<(&str, &str)> {
    let rest = target.strip_prefix("s3://").with_context(|| format!("{target:?} is not s3://bucket or s3://bucket/prefix"))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        bail!("{target:?} names no bucket");
    }
    Ok((bucket, prefix))
}

fn check(file: &Path, env: &Env, keys: (&str, &str), json: bool) -> anyhow::Result<()> {
    let bytes = env.fs.read_small(file, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", file.display()))?;
    let signed: Signed =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not a summary of `dozo admin verify`", file.display()))?;
    if signed.access_key != keys.0 {
        bail!("the summary was signed by {}, and cannot be checked with the key of {}", signed.access_key, keys.0);
    }
    if signed.summary.signature(keys.0, keys.1) != signed.signature {
        bail!("the signature is wrong: the summary was changed, or made with another secret key");
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&signed)?);
    } else {
        println!("{}", signed.summary);
        println!("the signature is right");
    }
    verdict(&signed.summary)
}

async fn verify(env: &Env, client: &S3Client, bucket: &str, prefix: &str, json: bool) -> anyhow::Result<Summary> {
    let mut summary = Summary {
        format: 1,
        cluster: String::new(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        began_ms: env.now().as_millis(),
        ended_ms: 0,
        objects: 0,
        delete_markers: 0,
        bytes: 0,
        oldest_ms: None,
        newest_ms: None,
        root: String::new(),
        bad: 0,
        unknown: 0,
        findings: Vec::new(),
    };
    let mut root = blake3::Hasher::new();
    let mut next: Option<String> = None;
    loop {
        let page = ask_page(env, client, bucket, prefix, next.as_deref()).await?;
        text(&page["cluster"]).clone_into(&mut summary.cluster);
        for version in list(&page["verified"]) {
            add_version(&mut summary, &mut root, version);
        }
        for finding in list(&page["bad"]) {
            if !json {
                println!("{}", finding_line(finding));
            }
            add_finding(&mut summary, finding);
        }
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
        eprintln!(
            "verified so far: {} objects, {}, {} bad, {} unknown",
            summary.objects,
            size(&Value::from(summary.bytes)),
            summary.bad,
            summary.unknown
        );
    }
    summary.root = root.finalize().to_string();
    summary.ended_ms = env.now().as_millis();
    Ok(summary)
}

/// A page that got no reply is asked for again: it changes nothing.
async fn ask_page(env: &Env, client: &S3Client, bucket: &str, prefix: &str, next: Option<&str>) -> anyhow::Result<Value> {
    let mut query = vec![("bucket", bucket.to_owned()), ("prefix", prefix.to_owned())];
    query.extend(next.map(|next| ("next", next.to_owned())));
    let mut tries = 0;
    loop {
        tries += 1;
        match ask(client, "/admin/v1/verify", &query).await {
            // The first page tells what is wrong with the request or the cluster; later ones may have met a passing trouble.
            Err(error) if next.is_some() && tries < PAGE_TRIES_MAX => {
                eprintln!("{error:#}; asking again");
                env.sleep(std::time::Duration::from_secs(2)).await;
            }
            answer => return answer,
        }
    }
}

fn add_version(summary: &mut Summary, root: &mut blake3::Hasher, version: &Value) {
    let modified = version["modified_ms"].as_u64().unwrap_or(0);
    let bytes = version["bytes"].as_u64().unwrap_or(0);
    match version["kind"].as_str() {
        Some("object") => {
            summary.objects += 1;
            summary.bytes += bytes;
            summary.oldest_ms = Some(summary.oldest_ms.map_or(modified, |oldest| oldest.min(modified)));
            summary.newest_ms = Some(summary.newest_ms.map_or(modified, |newest| newest.max(modified)));
        }
        _ => summary.delete_markers += 1,
    }
    // Lengths first, so that no two lists of versions give the same bytes.
    for field in [&version["key"], &version["version_id"], &version["kind"], &version["etag"]] {
        let field = text(field).as_bytes();
        root.update(&(field.len() as u64).to_be_bytes());
        root.update(field);
    }
    root.update(&bytes.to_be_bytes());
    root.update(&modified.to_be_bytes());
}

fn add_finding(summary: &mut Summary, finding: &Value) {
    match finding["state"].as_str() {
        Some("unknown") => summary.unknown += 1,
        _ => summary.bad += 1,
    }
    if summary.findings.len() < BAD_LISTED_MAX {
        summary.findings.push(finding.clone());
    }
}

fn finding_line(finding: &Value) -> String {
    let what = text(&finding["what"]);
    let mut line =
        format!("{}: {} ({})", text(&finding["state"]).to_uppercase(), text(&finding["key"]), text(&finding["version_id"]));
    if what != "object" {
        line.push_str(&format!(" record {} chunk {} {}", finding["record"], finding["chunk"], text(&finding["chunk_id"])));
    }
    if what == "shard" {
        line.push_str(&format!(
            " {} shard {} on disk {} of node {}",
            text(&finding["kind"]),
            finding["slot"],
            text(&finding["disk"]),
            text(&finding["node"])
        ));
    }
    line.push_str(&format!(": {}", text(&finding["why"])));
    match finding["may_be_lost"].as_i64() {
        Some(spare) if spare >= 0 => line.push_str(&format!("; {spare} more shards of the chunk may be lost")),
        Some(_) => line.push_str("; too few whole shards are left"),
        None => {}
    }
    line
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("/{}", self.prefix) };
        writeln!(f, "verified s3://{}{prefix} of cluster {}", self.bucket, self.cluster)?;
        writeln!(f, "objects: {}, delete markers: {}", self.objects, self.delete_markers)?;
        writeln!(f, "bytes: {} ({})", self.bytes, size(&Value::from(self.bytes)))?;
        if let (Some(oldest), Some(newest)) = (self.oldest_ms, self.newest_ms) {
            writeln!(f, "written: {} to {}", rfc3339(oldest), rfc3339(newest))?;
        }
        writeln!(f, "read: {} to {}", rfc3339(self.began_ms), rfc3339(self.ended_ms))?;
        writeln!(f, "bad: {}, unknown: {}", self.bad, self.unknown)?;
        write!(f, "root: {}", self.root)
    }
}

/// Whole seconds, UTC.
fn rfc3339(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{millis} ms"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary() -> Summary {
        Summary {
            format: 1,
            cluster: "c".into(),
            bucket: "b".into(),
            prefix: String::new(),
            began_ms: 1,
            ended_ms: 2,
            objects: 3,
            delete_markers: 0,
            bytes: 4,
            oldest_ms: Some(5),
            newest_ms: Some(6),
            root: "r".into(),
            bad: 1,
            unknown: 0,
            findings: vec![json!({ "key": "k", "state": "corrupt", "slot": 1 })],
        }
    }

    #[test]
    fn a_signature_survives_the_file_and_nothing_else() {
        let right = summary().signature("root", "secret");
        let kept: Summary = serde_json::from_str(&serde_json::to_string_pretty(&summary()).unwrap()).unwrap();
        assert_eq!(kept.signature("root", "secret"), right);
        let mut changed = vec![kept.signature("root", "other"), kept.signature("toor", "secret")];
        changed.push(Summary { bad: 0, ..summary() }.signature("root", "secret"));
        changed.push(Summary { bytes: 5, ..summary() }.signature("root", "secret"));
        changed.push(Summary { findings: Vec::new(), ..summary() }.signature("root", "secret"));
        assert!(changed.iter().all(|signature| *signature != right));
    }

    #[test]
    fn the_root_depends_on_every_field_and_on_the_order() {
        let version = |key: &str, id: &str, bytes: u64| json!({ "key": key, "version_id": id, "kind": "object", "etag": "e", "bytes": bytes, "modified_ms": 7 });
        let root = |versions: &[Value]| {
            let (mut summary, mut root) = (summary(), blake3::Hasher::new());
            versions.iter().for_each(|version| add_version(&mut summary, &mut root, version));
            root.finalize()
        };
        let [first, second] = [version("a", "1", 1), version("b", "1", 1)];
        let right = root(&[first.clone(), second.clone()]);
        assert_eq!(right, root(&[first.clone(), second.clone()]));
        for other in [
            vec![second, first.clone()],
            vec![first.clone()],
            vec![first.clone(), version("b", "2", 1)],
            vec![first, version("b", "1", 2)],
            vec![version("a1", "", 1), version("b", "1", 1)],
        ] {
            assert_ne!(right, root(&other));
        }
    }

    #[test]
    fn targets_are_buckets_with_or_without_a_prefix() {
        assert_eq!(parse_target("s3://bucket").unwrap(), ("bucket", ""));
        assert_eq!(parse_target("s3://bucket/a/b").unwrap(), ("bucket", "a/b"));
        for wrong in ["bucket", "s3://", "s3:///key", "http://bucket"] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }
}
