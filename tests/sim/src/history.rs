//! What clients did and what they were told, with the simulated times.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// How an operation ended for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx, or the 404 of a GET.
    Ok,
    /// 4xx: it had no effect (K6).
    Refused(String),
    /// Anything else: it may have happened, or may still happen.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Put {
        key: u32,
        body: u64,
    },
    Delete {
        key: u32,
    },
    /// `seen` is the body's number; `None` when there is no object. Meaningless unless the outcome is `Ok`.
    Get {
        key: u32,
        seen: Option<u64>,
    },
    List {
        keys: BTreeSet<u32>,
    },
    /// A complete answer that is not what any client stored under its key: bytes, length or etag.
    Wrong {
        key: u32,
        what: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub client: u32,
    pub action: Action,
    pub started: Duration,
    pub ended: Duration,
    pub outcome: Outcome,
}

impl Operation {
    /// The last moment at which it may have taken effect.
    pub fn effective_until(&self) -> Duration {
        match self.outcome {
            Outcome::Unknown(_) => Duration::MAX,
            Outcome::Ok | Outcome::Refused(_) => self.ended,
        }
    }

    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    pub fn key(&self) -> Option<u32> {
        match &self.action {
            Action::Put { key, .. } | Action::Delete { key } | Action::Get { key, .. } | Action::Wrong { key, .. } => Some(*key),
            Action::List { .. } => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {:>10.3} client {} ", self.started.as_secs_f64(), self.ended.as_secs_f64(), self.client)?;
        match &self.action {
            Action::Put { key, body } => write!(f, "PUT {key} #{body}")?,
            Action::Delete { key } => write!(f, "DELETE {key}")?,
            Action::Get { key, seen: Some(body) } => write!(f, "GET {key} #{body}")?,
            Action::Get { key, seen: None } => write!(f, "GET {key} nothing")?,
            Action::List { keys } => write!(f, "LIST {keys:?}")?,
            Action::Wrong { key, what } => write!(f, "GET {key} WRONG {what}")?,
        }
        match &self.outcome {
            Outcome::Ok => write!(f, " ok"),
            Outcome::Refused(why) => write!(f, " refused: {why}"),
            Outcome::Unknown(why) => write!(f, " unknown: {why}"),
        }
    }
}
