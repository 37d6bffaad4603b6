//! Logs: text on a terminal, JSON otherwise, always on standard error (standard output is for results).

use std::io::IsTerminal;

use anyhow::{Context, bail};
use tracing_subscriber::EnvFilter;

use crate::config::Settings;

pub fn init(settings: &Settings) -> anyhow::Result<()> {
    let filter = settings.log.as_deref().unwrap_or("info");
    // The library logs every refused signature as an error of ours; the access log has them as what they are.
    let filter = if filter.contains("s3s") { filter.to_owned() } else { format!("{filter},s3s=off") };
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("{filter:?} is not a log filter"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format.as_deref().unwrap_or("auto") {
        "json" => builder.json().init(),
        "text" => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        "auto" if std::io::stderr().is_terminal() => builder.init(),
        "auto" => builder.json().init(),
        other => bail!("{other:?} is not a log format: use text, json or auto"),
    }
    Ok(())
}
