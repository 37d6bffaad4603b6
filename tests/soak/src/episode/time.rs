//! Processes that live at another time than the others.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::Episode;
use crate::clock::{Clock, NOTICED_AFTER};
use crate::command::run;

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

/// When a machine without a battery believes to be started, and when 32 bits without a sign are at their end.
const FIRST_MINUTES: i64 = 600;
const YEAR_2106: i64 = 1 << 32;

/// Requests of clients whose clock is right are refused when a gateway's is wrong by more than a quarter of an hour.
const GATEWAY_WRONG_BY: i64 = 600;

impl Episode<'_> {
    /// A node starts at one wrong time and is moved to the next while it runs, through an hour and a year to both ends of time; a
    /// gateway is wrong by minutes. Nothing expires, and everything is served all the while. Returns how often a process was seen
    /// to believe it.
    pub(super) fn live_at_other_times(&mut self, node: usize) -> anyhow::Result<u64> {
        let now = placement_env::system().now().as_seconds() as i64;
        let gateway = self.dice.range(0, self.fleet.gateways() as u64) as usize;
        let file = self.fleet.dir.path().join("clock");
        let mut seen = 0;
        for (turn, (starts, jumps)) in
            [(FIRST_MINUTES - now, HOUR), (-HOUR, YEAR), (YEAR, -HOUR), (YEAR_2106 - now, -YEAR)].into_iter().enumerate()
        {
            self.fleet.kill_nodes(&[node]);
            self.fleet.kill_gateway(gateway);
            let minutes = if turn % 2 == 0 { GATEWAY_WRONG_BY } else { -GATEWAY_WRONG_BY };
            self.fleet.nodes[node].clock = Some(Clock::wrong_by(starts, file.with_extension("node"))?);
            self.fleet.set_gateway_clock(gateway, Some(Clock::wrong_by(minutes, file.with_extension("gateway"))?));
            let logged = std::fs::read_to_string(self.fleet.node_log(node))?.len();
            self.fleet.start_missing().with_context(|| format!("C6 a clock wrong by {starts} s"))?;
            seen += self.believes(node, logged, now + starts)?;
            self.serve_everything(&format!("node {node} started {starts:+} s from now, gateway {gateway} is {minutes:+} s off"))?;
            self.fleet.nodes[node].clock.as_ref().context("it has a clock")?.set(jumps)?;
            sleep(NOTICED_AFTER);
            self.serve_everything(&format!("its clock jumped to {jumps:+} s"))?;
        }
        self.fleet.kill_nodes(&[node]);
        self.fleet.kill_gateway(gateway);
        self.fleet.nodes[node].clock = None;
        self.fleet.set_gateway_clock(gateway, None);
        Ok(seen)
    }

    fn serve_everything(&mut self, what: &str) -> anyhow::Result<()> {
        self.note(what);
        self.wait_served()?;
        self.wait_acknowledged(12)?;
        self.read_back();
        self.look_after_processes(&[])
    }

    /// Whether the first line that a node logged after so many bytes is from about this time.
    fn believes(&self, node: usize, after: usize, unix: i64) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(self.fleet.node_log(node))?;
        let line = text.get(after..).and_then(|text| text.lines().next()).context("a node logs its start")?;
        let logged: Value = serde_json::from_str(line).context("a line of the log is JSON")?;
        let stamp = logged["timestamp"].as_str().context("it has a time")?;
        let shown: i64 = run(&["date", "--utc", "+%s", "--date", stamp])?.trim().parse().context("date prints a number")?;
        let wrong = Duration::from_secs(shown.abs_diff(unix));
        anyhow::ensure!(wrong < Duration::from_secs(600), "the clock was not taken: {line} is {wrong:?} from {unix}");
        Ok(1)
    }
}
