//! Nodes that come and go for good, under load and with crashes in between.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use tests_faults::Row;

use super::{Episode, REBUILD_AFTER, some_kind};

impl Episode<'_> {
    /// A node dies with its disk; a blank one joins, what is lost is rebuilt there, and the dead one is removed.
    pub(super) fn replace(&mut self, node: usize) -> anyhow::Result<u64> {
        self.settle().context("before a node is replaced")?;
        self.fleet.admin(&["set", "--rebuild-after", "3s"])?;
        self.fleet.kill_nodes(&[node]);
        self.fleet.nodes[node].disk.wipe()?;
        self.fleet.nodes[node].gone = true;
        let kind = some_kind(self.means, &self.dice);
        let blank = self.fleet.join_node(kind)?;
        self.fleet.admin_until(&["apply", "take-in", self.fleet.address(blank)], Duration::from_secs(30))?;
        // Until it counts as lost, there is nothing to settle.
        sleep(Duration::from_secs(9));
        self.settle().context("after the new disk was taken in")?;
        self.remove(node)?;
        self.fleet.admin_until(&["set", "--rebuild-after", REBUILD_AFTER], Duration::from_secs(30))?;
        self.victim = None;
        Ok(1)
    }

    /// A node joins under load, another is drained and removed; in the middle of either a node dies and comes back.
    pub(super) fn turn_over(&mut self, leaving: usize) -> anyhow::Result<u64> {
        let kind = some_kind(self.means, &self.dice);
        let fresh = self.fleet.join_node(kind)?;
        let (fresh_address, leaving_address) = (self.fleet.address(fresh).to_owned(), self.fleet.address(leaving).to_owned());
        let limit = Duration::from_secs(30);
        self.fleet.admin_until(&["apply", "take-in", &fresh_address], limit)?;
        // Whoever is asked may have no answer for a moment; that is no refusal, and no permission.
        let stale = || match self.fleet.admin(&["apply", "drain", &leaving_address, "--layout", "1"]) {
            Ok(_) => Some(false),
            Err(error) if error.to_string().contains("stale") => Some(true),
            Err(_) => {
                sleep(Duration::from_millis(500));
                None
            }
        };
        let refused = (0..20).find_map(|_| stale()).unwrap_or(false);
        if !refused {
            self.outcome.violations.push("M8 a change planned on an old layout was not refused".to_owned());
        }
        sleep(self.dice.millis(500, 4000));
        self.crash_somebody()?;
        self.settle().context("after a node was taken in")?;
        self.fleet.admin_until(&["apply", "drain", &leaving_address], limit)?;
        sleep(self.dice.millis(500, 4000));
        self.crash_somebody()?;
        self.settle().context("after a node was drained")?;
        self.remove(leaving)?;
        let come_back = self.fleet.start_node(leaving).err().context("M2 a removed node came back")?;
        let said = format!("{come_back:#}");
        anyhow::ensure!(said.contains("was removed from the cluster"), "M2 a removed node is not told so: {said}");
        if self.victim == Some(leaving) {
            self.victim = None;
        }
        Ok(u64::from(refused))
    }

    fn crash_somebody(&mut self) -> anyhow::Result<()> {
        let members = self.fleet.members();
        let node = members[self.dice.range(0, members.len() as u64) as usize];
        self.note(&format!("meanwhile node {node} crashes"));
        if self.fleet.nodes[node].disk.can_lose_power() {
            self.fleet.cut_power(&[node])?;
        } else {
            self.fleet.kill_nodes(&[node]);
        }
        self.outcome.rows.hit(Row::P18);
        sleep(self.dice.millis(200, 3000));
        self.fleet.start_missing()
    }

    fn remove(&mut self, node: usize) -> anyhow::Result<()> {
        let address = self.fleet.address(node).to_owned();
        self.fleet.admin_until(&["apply", "remove-disk", &address], Duration::from_secs(60))?;
        // Its replicas of metadata groups move one by one.
        self.fleet.admin_until(&["apply", "remove-node", &address], Duration::from_secs(120))?;
        self.fleet.nodes[node].gone = true;
        self.fleet.kill_nodes(&[node]);
        self.note(&format!("node {node} is removed"));
        Ok(())
    }
}
