//! Raft's own log lines, passed on to `tracing` at debug level: what matters of them the driver says itself.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        // Raft says something at debug and trace level for every message: not worth formatting.
        if record.level().is_at_least(Level::Info) && tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
            tracing::debug!(target: "raft", "{}", record.msg());
        }
        Ok(())
    }
}

pub(crate) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}
