//! Disks that turn up where they do not belong, and nodes of which there are two.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;

use super::Episode;
use crate::command::run;
use crate::images::Swapped;

impl Episode<'_> {
    /// Two nodes start with each other's disk below their own state. Both are refused by name, and nothing on a disk changes.
    /// Returns how many were refused.
    pub(super) fn swap_disks(&mut self, node: usize) -> anyhow::Result<u64> {
        let others: Vec<usize> = self.fleet.members().into_iter().filter(|other| *other != node).collect();
        let other = others[self.dice.range(0, others.len() as u64) as usize];
        self.fleet.kill_nodes(&[node, other]);
        let [one, two] = [node, other].map(|node| self.fleet.nodes[node].disk.data().join("disk"));
        let before = [listing(&one)?, listing(&two)?];
        let aside = tempfile::tempdir_in(self.fleet.dir.path())?;
        let swapped = Swapped::swap(&one, &two, aside.path())?;
        for node in [node, other] {
            let refused = self.fleet.start_node(node).err().with_context(|| format!("D24 node {node} serves another's disk"))?;
            let said = format!("{refused:#}");
            anyhow::ensure!(said.contains("is a disk of node"), "D24 node {node} does not say what is wrong: {said}");
        }
        drop(swapped);
        let after = [listing(&one)?, listing(&two)?];
        anyhow::ensure!(before == after, "D24 a disk in the wrong place was written to: {before:?} became {after:?}");
        Ok(2)
    }

    /// A node and a copy of its whole disk start at once: one is the node, and the other says that it is not. Returns how many
    /// were refused.
    pub(super) fn clone_node(&mut self, node: usize) -> anyhow::Result<u64> {
        self.fleet.kill_nodes(&[node]);
        let copy = self.fleet.copy_node(node)?;
        let refused = self.fleet.start_missing().err().context("M1 a node and its copy both started")?;
        let said = format!("{refused:#}");
        let is_clear = ["runs already", "out of date", "another process is node"].iter().any(|words| said.contains(words));
        anyhow::ensure!(is_clear, "M1 one of two was not refused for being the second: {said}");
        // Whoever is the node goes on being it.
        sleep(Duration::from_secs(4));
        let runs = [node, copy].map(|node| self.fleet.node(node).is_some_and(|process| process.is_running()));
        anyhow::ensure!(runs[0] != runs[1], "M1 of a node and its copy {runs:?} run: {said}");
        let (winner, loser) = if runs[0] { (node, copy) } else { (copy, node) };
        self.note(&format!("node {winner} is the node, and {loser} is not"));
        self.fleet.nodes[loser].gone = true;
        self.fleet.kill_nodes(&[loser]);
        if self.victim == Some(loser) {
            self.victim = Some(winner);
        }
        let again = self.fleet.start_node(loser).err().context("M1 the second of two started later")?;
        let said = format!("{again:#}");
        anyhow::ensure!(["runs already", "out of date"].iter().any(|words| said.contains(words)), "M1 {said}");
        Ok(2)
    }
}

/// Names, sizes and times of everything below a directory.
fn listing(dir: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let listed = run(&["find", &dir.display().to_string(), "-printf", "%P %s %T@\n"])?;
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}
