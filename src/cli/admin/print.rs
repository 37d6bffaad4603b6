//! Answers of the admin listener, for people.

use serde_json::Value;

pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(super) fn print_status(status: &Value) -> anyhow::Result<()> {
    if status["formed"] != Value::Bool(true) {
        println!("no cluster is formed yet");
        return Ok(());
    }
    println!("cluster {}  epoch {}  profile {}", text(&status["cluster"]), status["epoch"], text(&status["profile"]));
    println!("redundancy: {}", text(&status["redundancy"]));
    let capacity = &status["capacity"];
    println!(
        "capacity: {} in total, {} free (room for {} of objects), {} of shards",
        size(&capacity["total_bytes"]),
        size(&capacity["available_bytes"]),
        size(&capacity["available_object_bytes"]),
        size(&capacity["shard_bytes"])
    );
    for coded in list(&status["upkeep"]["profiles"]) {
        println!("coded {}: {} in {} chunks", text(&coded["profile"]), size(&coded["data"]["bytes"]), coded["data"]["chunks"]);
    }
    println!("writable disks: {}, needed for a write: {}", status["disks_writable"], status["write_quorum"]);
    print_upkeep(&status["upkeep"]);
    print_scrub(status);
    println!();
    println!("{:<34}{:<24}{:<16}{:<8}answers", "node", "address", "zone", "state");
    for node in list(&status["nodes"]) {
        println!(
            "{:<34}{:<24}{:<16}{:<8}{}",
            text(&node["id"]),
            text(&node["address"]),
            text(&node["zone"]),
            text(&node["state"]),
            if node["answers"] == Value::Bool(true) { "yes" } else { "no" }
        );
        for disk in list(&node["disks"]) {
            let report = &disk["report"];
            println!(
                "  disk {:<34}{:<10}{:<10}{:<8}{:>12} free of {:<12}{:>10} shards  {}",
                text(&disk["id"]),
                text(&disk["role"]),
                text(&disk["state"]),
                text(&report["health"]),
                size(&report["available_bytes"]),
                size(&report["total_bytes"]),
                report["shards"].as_u64().map_or("-".to_owned(), |shards| shards.to_string()),
                text(&report["path"])
            );
        }
    }
    print_drained(status);
    print_stale_copies(status);
    println!();
    println!("{:<8}{:<36}voters", "group", "leader");
    for group in list(&status["groups"]) {
        let voters: Vec<&str> = list(&group["voters"]).iter().map(text).collect();
        let leader = group["leader"].as_str().unwrap_or("none answers");
        println!("{:<8}{leader:<36}{}", group["id"].as_u64().unwrap_or_default(), voters.len());
    }
    Ok(())
}

/// What reading through the disks has come to: those that are quarantined or damaged, and how far the slowest disk is.
fn print_scrub(status: &Value) {
    let nodes = list(&status["nodes"]).iter();
    let reports: Vec<&Value> =
        nodes.flat_map(|node| list(&node["disks"])).map(|disk| &disk["report"]).filter(|report| report.is_object()).collect();
    let sum = |of: fn(&Value) -> Option<u64>| reports.iter().filter_map(|report| of(report)).sum::<u64>();
    let scrubbing: Vec<&Value> =
        reports.iter().map(|report| &report["scrub"]["current"]).filter(|current| current.is_object()).collect();
    let finished = reports.iter().filter(|report| report["scrub"]["finished"].is_object()).count();
    let bad = sum(|report| report["quarantined_shards"].as_u64());
    let found = sum(|report| {
        let tally = |of: &str| report["scrub"][of]["damaged_shards"].as_u64().unwrap_or(0);
        Some(tally("current") + tally("finished"))
    });
    let dark = sum(|report| {
        let tally = |of: &str| {
            let tally = &report["scrub"][of];
            tally["dark_shards"].as_u64().unwrap_or(0) + tally["unreadable_dark_shards"].as_u64().unwrap_or(0)
        };
        Some(tally("current") + tally("finished"))
    });
    println!(
        "scrub: {} of {} disks read to the end, {} under way, once in {}; found bad {found} shards, dark {dark}; in quarantine {bad}",
        finished,
        reports.len(),
        scrubbing.len(),
        status["scrub_cycle_seconds"].as_u64().map_or("-".to_owned(), duration),
    );
}

/// What may be done with disks that were drained, and why they are not empty yet.
fn print_drained(status: &Value) {
    let disks = list(&status["nodes"]).iter().flat_map(|node| list(&node["disks"]));
    for disk in disks.filter(|disk| disk["role"] == "drained") {
        let id = text(&disk["id"]);
        let left = disk["report"]["shards"].as_u64().unwrap_or(0);
        let kept =
            if left == 0 { "it is empty".to_owned() } else { format!("the {left} on it are garbage, collected after a grace") };
        println!("disk {id}: 0 shards of objects are left there ({kept}); to take it out: dozo admin apply remove-disk {id}");
    }
}

/// A node takes a copy of the cluster's own state every hour; after two, something is wrong.
const COPY_STALE_SECONDS: u64 = 2 * 3600;

fn print_stale_copies(status: &Value) {
    for node in list(&status["nodes"]).iter().filter(|node| node["answers"] == Value::Bool(true)) {
        let stale = match node["system_copy_age_seconds"].as_u64() {
            Some(age) if age <= COPY_STALE_SECONDS => continue,
            Some(age) => format!("is {} old", duration(age)),
            None => "is missing yet".to_owned(),
        };
        println!("node {}: its copy of the cluster's own state {stale}", text(&node["id"]));
    }
}

/// One line when nothing is owed, else what is, and how long it may take.
fn print_upkeep(upkeep: &Value) {
    let owed = [
        ("lost", "to rebuild"),
        ("leaving", "to move off draining disks"),
        ("outdated", "to code anew, because new chunks have another profile"),
        ("misplaced", "to move to their place"),
    ];
    let mut idle = true;
    for (name, what) in owed {
        let work = &upkeep[name];
        let shards = work["shards"].as_u64().unwrap_or(0);
        if shards > 0 {
            idle = false;
            let stuck = work["stuck"].as_u64().filter(|stuck| *stuck > 0);
            let stuck = stuck.map_or(String::new(), |stuck| {
                format!(", {stuck} of them wait: too few disks can take them now or have room, or too little is there to read")
            });
            println!("shards {what}: {shards} ({}){stuck}", size(&work["bytes"]));
        }
    }
    if idle {
        println!("every shard is where it belongs, and coded as new ones are");
    } else {
        let left = upkeep["seconds_left"].as_u64().map_or("unknown".to_owned(), duration);
        println!("repair, re-coding and rebalance: {}/s, time left: {left}", size(&upkeep["bytes_per_second"]));
    }
    print_unsurveyed(upkeep);
}

fn print_unsurveyed(found: &Value) {
    let unsurveyed = list(&found["groups_not_surveyed"]).len();
    if unsurveyed > 0 {
        println!("{unsurveyed} metadata groups are being surveyed: there may be more");
    }
}

pub(super) fn print_risk(risk: &Value) -> anyhow::Result<()> {
    if risk["formed"] != Value::Bool(true) {
        println!("no cluster is formed yet");
        return Ok(());
    }
    let covered = |data: &Value| format!("{} keys, {} chunks, {}", data["keys"], data["chunks"], size(&data["bytes"]));
    println!(
        "surveyed: {} (what is larger than 16 KiB; smaller objects are replicated with their metadata)",
        covered(&risk["surveyed"])
    );
    println!("gone: {}", covered(&risk["gone"]));
    println!("unreadable now: {}", covered(&risk["unreadable_now"]));
    for margin in list(&risk["margins"]) {
        println!("can lose {} more shards: {}", margin["shards_may_be_lost"], covered(&margin["data"]));
    }
    for (name, what) in [("without_disk", "disk"), ("without_node", "node"), ("without_zone", "zone")] {
        let hanging = list(&risk[name]);
        if hanging.is_empty() {
            println!("any one {what} may fail: nothing becomes unreadable");
        }
        for one in hanging {
            println!("without {what} {}: unreadable {}", text(&one["id"]), covered(&one["data"]));
        }
    }
    print_upkeep(&risk["upkeep"]);
    Ok(())
}

/// `words` are the change as it was given.
pub(super) fn print_plan(plan: &Value, words: &str) -> anyhow::Result<()> {
    if plan["changes"] != Value::Bool(true) {
        println!("that is so already: nothing would change");
        return Ok(());
    }
    print_change(plan);
    let held = plan["shards_held"].as_u64().unwrap_or(0);
    if held > 0 {
        println!("still there: {held} shards, {}; wait until they are moved", size(&plan["bytes_held"]));
    }
    println!("to do it: dozo admin apply {words} --layout {}", plan["layout"]);
    Ok(())
}

pub(super) fn print_applied(applied: &Value) -> anyhow::Result<()> {
    if applied["changes"] != Value::Bool(true) {
        println!("that is so already: nothing was changed");
        return Ok(());
    }
    print_change(applied);
    println!("done; `dozo admin status` shows the progress");
    Ok(())
}

fn print_change(plan: &Value) {
    let time = plan["seconds_expected"].as_u64().map_or("not known yet".to_owned(), duration);
    println!(
        "moves {} of {} partitions, about {}; expected time: {time}",
        plan["partitions_moved"],
        plan["partitions"],
        size(&plan["bytes_moved"])
    );
    let recoded = &plan["recoded"];
    if recoded["chunks"].as_u64().is_some_and(|chunks| chunks > 0) {
        println!(
            "codes anew {} chunks of {} keys, {}; that writes about {} of shards, and needs the room of old and new for a while",
            recoded["chunks"],
            recoded["keys"],
            size(&recoded["bytes"]),
            size(&plan["recoded_shard_bytes"])
        );
    }
    if plan["profile_before"] != plan["profile_after"] {
        println!("new chunks are coded {} -> {}", text(&plan["profile_before"]), text(&plan["profile_after"]));
        // Where nobody has looked yet, there may be more to code anew than is told.
        print_unsurveyed(plan);
    }
    let balance = |of: &Value| {
        format!("fullest {:.2}, emptiest {:.2}", of["fullest"].as_f64().unwrap_or(0.0), of["emptiest"].as_f64().unwrap_or(0.0))
    };
    println!("balance (1.00 is even): {} -> {}", balance(&plan["balance_before"]), balance(&plan["balance_after"]));
    let tolerance = |of: &Value| format!("{} disks, {} nodes, {} zones", of["disks"], of["nodes"], of["zones"]);
    println!("may be lost at once: {} -> {}", tolerance(&plan["tolerance_before"]), tolerance(&plan["tolerance_after"]));
}

pub(super) fn print_explained(found: &Value) -> anyhow::Result<()> {
    println!("s3://{}/{}", text(&found["bucket"]), text(&found["key"]));
    println!(
        "metadata: index shard {}, slot {}, group {}, leader {}",
        found["index_shard"],
        found["slot"],
        found["group"],
        text(&found["group_leader"])
    );
    for version in list(&found["versions"]) {
        let latest = if version["latest"] == Value::Bool(true) { "  (latest)" } else { "" };
        println!("\nversion {}  {}{latest}", text(&version["version_id"]), text(&version["kind"]));
        let data = &version["data"];
        if data.is_null() {
            continue;
        }
        println!("  {} bytes, etag {}", data["bytes"], text(&data["etag"]));
        for record in list(&data["records"]) {
            if let Some(placed) = record["placed"].as_str() {
                println!("  {} bytes {placed}", record["bytes"]);
            }
            for chunk in list(&record["chunks"]) {
                let lost = &chunk["may_be_lost"];
                println!(
                    "  chunk {}  {} bytes  {}  {} of {} shards readable; bears the loss of {} more disks, {} nodes, {} zones",
                    text(&chunk["chunk"]),
                    chunk["bytes"],
                    text(&chunk["profile"]),
                    chunk["readable_shards"],
                    list(&chunk["shards"]).len(),
                    lost["disks"],
                    lost["nodes"],
                    lost["zones"]
                );
                for shard in list(&chunk["shards"]) {
                    println!(
                        "    {:>2} {:<7}disk {:<34}node {:<34}zone {:<12}{}",
                        shard["slot"].as_u64().unwrap_or_default(),
                        text(&shard["kind"]),
                        text(&shard["disk"]),
                        text(&shard["node"]),
                        text(&shard["zone"]),
                        text(&shard["why"])
                    );
                }
            }
            if record["chunks_omitted"].as_u64().unwrap_or(0) > 0 {
                println!("  ... and {} more chunks", record["chunks_omitted"]);
            }
        }
    }
    Ok(())
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Bytes in the largest binary unit that leaves a number of at least one.
pub(super) fn size(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return "-".to_owned() };
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = bytes as f64;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{scaled:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_binary_units() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(&Value::from(bytes)), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(3 << 40, "3.0 TiB");
        assert_eq!(size(&Value::Null), "-");
    }

    #[test]
    fn times_are_shown_in_what_people_count_in() {
        assert_eq!([0, 59, 60, 61, 3600, 5400].map(duration), ["0 s", "59 s", "1 min", "2 min", "1 h 0 min", "1 h 30 min"]);
    }
}
