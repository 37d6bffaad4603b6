//! `dozo config`.

use crate::config::Settings;

pub fn show(settings: &Settings) -> anyhow::Result<()> {
    print!("{}", settings.describe()?);
    Ok(())
}
