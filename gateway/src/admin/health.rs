//! Readiness that tells the truth: it does what requests do.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use placement_types::GroupId;
use storage_node_proto::query::{Answer, Query};

use crate::gateway::Gateway;
use crate::limits::{READY_DEADLINE, READY_FRESH};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What does not work; empty when ready.
    pub failing: Vec<String>,
}

/// Remembers the last verdict, so that a storm of probes costs one.
#[derive(Default)]
pub struct Readiness {
    last: tokio::sync::Mutex<Option<(Duration, Verdict)>>,
}

impl Readiness {
    /// Probes the cluster unless that was just done; concurrent callers share one probe.
    pub async fn check(&self, gw: &Gateway) -> Verdict {
        let mut last = self.last.lock().await;
        if let Some((at, verdict)) = &*last
            && gw.env.monotonic().saturating_sub(*at) < READY_FRESH
        {
            return verdict.clone();
        }
        let verdict = probe(gw).await;
        *last = Some((gw.env.monotonic(), verdict.clone()));
        verdict
    }
}

async fn probe(gw: &Gateway) -> Verdict {
    let Some(map) = gw.maps.borrow().clone() else {
        return Verdict { failing: vec!["no cluster map is known: the cluster is not formed or not reachable".into()] };
    };
    let mut failing = Vec::new();
    let groups: Vec<GroupId> = map.metadata_groups().collect();
    let groups_answer = stream::iter(groups)
        .map(|group| async move {
            let answer = gw.router.query_group(group, READY_DEADLINE, Query::Referenced { txns: Vec::new() }).await;
            (!matches!(answer, Ok(Answer::Referenced { .. }))).then_some(group)
        })
        .buffer_unordered(64)
        .collect::<Vec<Option<GroupId>>>();
    let (system, silent) = futures::join!(gw.system.buckets(READY_DEADLINE), groups_answer);
    if system.is_err() {
        failing.push("the system group does not answer".into());
    }
    let mut silent: Vec<GroupId> = silent.into_iter().flatten().collect();
    silent.sort_unstable();
    failing.extend(silent.iter().map(|group| format!("metadata group {group} does not answer")));
    let writable: BTreeSet<_> = map.disks.keys().filter(|disk| map.takes_shards(**disk)).collect();
    let quorum = map.profile.write_quorum();
    if writable.len() < quorum {
        failing.push(format!("{} disks take shards, {quorum} are needed for a write", writable.len()));
    }
    Verdict { failing }
}
