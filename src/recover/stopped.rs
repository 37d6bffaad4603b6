//! A storage node that is stopped: what it has, and what a plan of recovery makes of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use placement::IdentityFile;
use placement::backup::{self, Backup};
use placement::life::{self, Life, Stage};
use placement_map::recovery::{LogPlace, NodeReport, NodeSteps, RecoveryPlan, ReplicaReport, Step};
use placement_map::system::SystemCommand;
use placement_proto::meeting::Membership;
use placement_types::{Env, GroupId, Incarnation, NodeId, Timestamp};
use storage_node::KvOpeners;
use storage_node_consensus::{Config, LogPosition, Offline, ReplicaPosition, Rewrite};
use storage_node_proto::command::Command;

/// What applying a plan came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It has been applied before.
    Already,
    Done,
}

/// The directory of a stopped node, locked against its start.
pub struct StoppedNode {
    env: Env,
    node_dir: PathBuf,
    node: NodeId,
    membership: Membership,
    life: Life,
    offline: Offline,
    copy: Option<Backup>,
    _identity: IdentityFile,
}

impl StoppedNode {
    /// Opens the node whose first data directory is `dir`, with all the checks of its start.
    ///
    /// # Errors
    /// When it runs, is not a node of a cluster, or has a log or state that it would not start with.
    pub async fn open(env: &Env, dir: &Path, kv: &KvOpeners) -> anyhow::Result<Self> {
        let node_dir = dir.join("node");
        let shown = node_dir.display();
        if env.fs.metadata(&node_dir.join("node.identity")).with_context(|| format!("cannot look into {shown}"))?.is_none() {
            bail!("{shown} is not the directory of a storage node: give the first of its data directories");
        }
        let identity = IdentityFile::load_or_create(env.clone(), &node_dir)
            .await
            .with_context(|| format!("{shown} cannot be used: stop the node first, recovery is for stopped nodes only"))?;
        let current = identity.current();
        let Some(membership) = current.membership else {
            bail!("the node in {shown} is not part of any cluster: there is nothing to recover");
        };
        let first = Life { cluster: membership.cluster, incarnation: Incarnation::FIRST, stage: Stage::InEffect };
        let (inside, dir, open, replica) = (env.clone(), node_dir.clone(), kv.state.clone(), membership.replica);
        let opened = env.run_blocking(move || {
            let life = life::read(&inside, &dir)?.unwrap_or(first);
            let state = open(&dir.join("state")).context("its metadata state cannot be opened")?;
            let offline = Offline::open(&Config::new(replica, dir.join("log")), &inside, state)?;
            anyhow::Ok((life, offline, backup::newest(&inside, &dir)?))
        });
        let (life, offline, copy) = opened.await.with_context(|| format!("the node in {shown} cannot be opened"))?;
        if life.cluster != membership.cluster {
            bail!("{shown} holds the incarnation of another cluster");
        }
        Ok(Self { env: env.clone(), node_dir, node: current.node, membership, life, offline, copy, _identity: identity })
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the node has. Blocks.
    ///
    /// # Errors
    /// When a recovery of it was begun and not finished, or its log cannot be read.
    pub fn report(&self) -> anyhow::Result<NodeReport> {
        if self.life.stage == Stage::Rewriting {
            bail!("a recovery of node {} was begun and not finished: apply its plan once more first", self.node);
        }
        let positions = self.offline.positions()?;
        let has_system = positions.iter().any(|position| position.group == GroupId::SYSTEM && !position.voters.is_empty());
        Ok(NodeReport {
            cluster: self.membership.cluster,
            incarnation: self.life.incarnation,
            node: self.node,
            replica: self.membership.replica,
            replicas: positions.into_iter().map(replica_report).collect(),
            known: has_system.then(|| backup::known_cluster(&self.offline.state(GroupId::SYSTEM))).flatten(),
            copy: self.copy.as_ref().filter(|copy| copy.copy.cluster == self.membership.cluster).map(Backup::report),
        })
    }

    /// What the plan has for this node.
    ///
    /// # Errors
    /// When it has nothing for it, or was made of what the node does not have any more.
    pub fn check<'a>(&self, plan: &'a RecoveryPlan) -> anyhow::Result<&'a NodeSteps> {
        if plan.cluster != self.membership.cluster {
            bail!("the plan is for cluster {}, node {} is of {}", plan.cluster, self.node, self.membership.cluster);
        }
        let Some(steps) = plan.steps_of(self.node) else {
            bail!(
                "the plan has nothing for node {}: it is gone by that plan, or was not inspected. Empty its data directories \
                 and start it with --join, as a new node",
                self.node
            );
        };
        let Life { incarnation, stage, .. } = self.life;
        if incarnation == plan.incarnation {
            return Ok(steps);
        }
        if incarnation != plan.before || stage == Stage::Rewriting {
            bail!(
                "the plan leads from incarnation {} to {}, node {} is of {incarnation}: make a new plan",
                plan.before,
                plan.incarnation,
                self.node
            );
        }
        let has: Vec<(GroupId, LogPlace)> =
            self.offline.positions()?.iter().map(|position| (position.group, place(position.last))).collect();
        if has != steps.expected {
            bail!(
                "node {} has been running since it was inspected: stop every node, inspect again and make a new plan",
                self.node
            );
        }
        Ok(steps)
    }

    /// Does it. A crash at any moment leaves a node that does not start and to which the plan can be applied again. Blocks.
    ///
    /// # Errors
    /// As [`StoppedNode::check`]; and when something cannot be written.
    pub fn apply(&mut self, plan: &RecoveryPlan) -> anyhow::Result<Applied> {
        let steps = self.check(plan)?;
        if self.life.incarnation == plan.incarnation && self.life.stage == Stage::InEffect {
            return Ok(Applied::Already);
        }
        let rewrites = steps.steps.iter().map(|step| self.rewrite(plan, step)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut life = Life { cluster: plan.cluster, incarnation: plan.incarnation, stage: Stage::Rewriting };
        life::write(&self.env, &self.node_dir, &life)?;
        self.life = life;
        self.offline.rewrite(&rewrites)?;
        life.stage = Stage::InEffect;
        life::write(&self.env, &self.node_dir, &life)?;
        self.life = life;
        Ok(Applied::Done)
    }

    fn rewrite(&self, plan: &RecoveryPlan, step: &Step) -> anyhow::Result<Rewrite> {
        let entry = || plan.command().to_versioned();
        Ok(match step {
            Step::Alone { group, after } => {
                Rewrite::Alone { group: *group, after: *after, entry: (*group == GroupId::SYSTEM).then(entry) }
            }
            Step::Forget { group } => Rewrite::Forget { group: *group },
            Step::Found { copied, at } => {
                let copy = self.copy.as_ref().filter(|copy| copy.copy.place == *copied);
                let copy = copy.context("the copy of the system group that the plan was made of is not here any more")?;
                Rewrite::Found {
                    group: GroupId::SYSTEM,
                    at: LogPosition { term: at.term, index: at.index },
                    pairs: copy.copy.rows.clone(),
                    entry: entry(),
                }
            }
        })
    }
}

fn place(position: LogPosition) -> LogPlace {
    LogPlace { term: position.term, index: position.index }
}

fn replica_report(position: ReplicaPosition) -> ReplicaReport {
    let newest = position.newest.as_deref().and_then(|entry| time_of(position.group, entry));
    ReplicaReport {
        group: position.group,
        term: position.term,
        last: place(position.last),
        committed: position.committed,
        applied: position.applied,
        voters: position.voters,
        voters_outgoing: position.voters_outgoing,
        members_open: position.members_open,
        newest,
    }
}

/// When an entry was proposed, by the clock of who did.
fn time_of(group: GroupId, entry: &[u8]) -> Option<Timestamp> {
    match group {
        GroupId::SYSTEM => SystemCommand::from_versioned(entry).ok().map(|command| command.time),
        _ => Command::from_versioned(entry).ok().map(|command| command.time),
    }
}

#[cfg(test)]
mod tests;
