//! What clients did and what they were told, with the simulated times.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// How an operation ended for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx, or the 404 of a GET.
    Ok,
    /// 412: the condition did not hold, which is an answer like any other.
    Unmet,
    /// Any other 4xx: it had no effect (K6).
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
    /// A PUT that demands that there is no object.
    Create {
        key: u32,
        body: u64,
    },
    /// A PUT that demands that the object is body `expected`.
    Swap {
        key: u32,
        expected: u64,
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
    /// All keys of which the number is within `scope`.
    List {
        scope: Range<u32>,
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
            Outcome::Ok | Outcome::Unmet | Outcome::Refused(_) => self.ended,
        }
    }

    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// It certainly had no effect.
    pub fn is_void(&self) -> bool {
        matches!(self.outcome, Outcome::Unmet | Outcome::Refused(_))
    }

    /// The body that it was to store.
    pub fn body(&self) -> Option<u64> {
        match self.action {
            Action::Put { body, .. } | Action::Create { body, .. } | Action::Swap { body, .. } => Some(body),
            Action::Delete { .. } | Action::Get { .. } | Action::List { .. } | Action::Wrong { .. } => None,
        }
    }

    pub fn key(&self) -> Option<u32> {
        match &self.action {
            Action::Put { key, .. }
            | Action::Create { key, .. }
            | Action::Swap { key, .. }
            | Action::Delete { key }
            | Action::Get { key, .. }
            | Action::Wrong { key, .. } => Some(*key),
            Action::List { .. } => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {:>10.3} client {} ", self.started.as_secs_f64(), self.ended.as_secs_f64(), self.client)?;
        match &self.action {
            Action::Put { key, body } => write!(f, "PUT {key} #{body}")?,
            Action::Create { key, body } => write!(f, "CREATE {key} #{body}")?,
            Action::Swap { key, expected, body } => write!(f, "SWAP {key} #{expected} for #{body}")?,
            Action::Delete { key } => write!(f, "DELETE {key}")?,
            Action::Get { key, seen: Some(body) } => write!(f, "GET {key} #{body}")?,
            Action::Get { key, seen: None } => write!(f, "GET {key} nothing")?,
            Action::List { scope, keys } if keys.len() > 100 => write!(f, "LIST {scope:?} {} keys", keys.len())?,
            Action::List { scope, keys } => write!(f, "LIST {scope:?} {keys:?}")?,
            Action::Wrong { key, what } => write!(f, "GET {key} WRONG {what}")?,
        }
        match &self.outcome {
            Outcome::Ok => write!(f, " ok"),
            Outcome::Unmet => write!(f, " unmet"),
            Outcome::Refused(why) => write!(f, " refused: {why}"),
            Outcome::Unknown(why) => write!(f, " unknown: {why}"),
        }
    }
}
