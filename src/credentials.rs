//! The root user's keys: from the settings, or made at the first start of an embedded server.

use std::path::Path;

use anyhow::{Context, bail};
use placement_types::Env;

use crate::config::Settings;

/// Keys that everybody knows: an internet-facing server with one of them is taken over within hours.
const KNOWN_DEFAULTS: [&str; 8] = ["minioadmin", "rustfsadmin", "admin", "password", "changeme", "secret", "test", "root"];

const SECRET_CHARACTERS_MIN: usize = 16;
const FILE_NAME: &str = "root-credentials";
const FILE_BYTES_MAX: u64 = 4096;

/// The root user's access key and secret key.
#[derive(Clone)]
pub struct RootCredentials {
    pub access_key: String,
    pub secret_key: String,
}

/// Where the keys came from, so that the start message can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Settings,
    /// Read from the file made at an earlier start.
    Kept,
    Generated,
}

impl RootCredentials {
    /// The keys that the settings name.
    ///
    /// # Errors
    /// Only one of the two given, a file that cannot be read, a known default, a short secret.
    pub fn from_settings(env: &Env, settings: &Settings) -> anyhow::Result<Option<Self>> {
        let access = value_or_file(env, settings.root_access_key.as_deref(), settings.root_access_key_file.as_deref(), "access")?;
        let secret = value_or_file(env, settings.root_secret_key.as_deref(), settings.root_secret_key_file.as_deref(), "secret")?;
        match (access, secret) {
            (None, None) => Ok(None),
            (Some(access_key), Some(secret_key)) => Self::checked(access_key, secret_key).map(Some),
            _ => bail!("set both DOZO_ROOT_ACCESS_KEY and DOZO_ROOT_SECRET_KEY (or both ..._FILE), or neither"),
        }
    }

    fn checked(access_key: String, secret_key: String) -> anyhow::Result<Self> {
        let legal = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b',');
        if !(3..=128).contains(&access_key.len()) || !legal(&access_key) {
            bail!("the root access key must have 3 to 128 printable ASCII characters without `/` and `,`");
        }
        let known = |text: &str| KNOWN_DEFAULTS.contains(&text.to_ascii_lowercase().as_str());
        if known(&secret_key) || (known(&access_key) && access_key == secret_key) {
            bail!("the root keys are a well-known default; choose others, for example with `openssl rand -hex 24`");
        }
        if secret_key.chars().count() < SECRET_CHARACTERS_MIN {
            bail!(
                "the root secret key has {} characters; it needs at least {SECRET_CHARACTERS_MIN}: `openssl rand -hex 24` makes one",
                secret_key.chars().count()
            );
        }
        Ok(Self { access_key, secret_key })
    }

    /// The settings' keys, else those kept in the data directory, else fresh ones that are then kept there, readable by the
    /// owner only.
    pub fn load_or_generate(env: &Env, settings: &Settings, dir: &Path) -> anyhow::Result<(Self, Origin)> {
        if let Some(keys) = Self::from_settings(env, settings)? {
            return Ok((keys, Origin::Settings));
        }
        let path = dir.join(FILE_NAME);
        if env.fs.metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?.is_some() {
            let text = env.fs.read_small(&path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?;
            let mut lines = text.lines();
            let (Some(access), Some(secret)) = (lines.next(), lines.next()) else {
                bail!(
                    "{} must have the access key and the secret key on two lines; remove it to have new ones made",
                    path.display()
                );
            };
            return Ok((Self::checked(access.to_owned(), secret.to_owned())?, Origin::Kept));
        }
        let mut random = [0; 40];
        env.random.fill(&mut random);
        let keys =
            Self { access_key: format!("DOZO{}", hex::encode_upper(&random[..8])), secret_key: hex::encode(&random[8..32]) };
        env.fs
            .replace_durably(&path, format!("{}\n{}\n", keys.access_key, keys.secret_key).as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok((keys, Origin::Generated))
    }
}

fn value_or_file(env: &Env, value: Option<&str>, file: Option<&Path>, what: &str) -> anyhow::Result<Option<String>> {
    match (value, file) {
        (Some(_), Some(_)) => bail!("the root {what} key is given both directly and by a file: keep one"),
        (Some(value), None) => Ok(Some(value.trim().to_owned())),
        (None, Some(file)) => {
            let bytes = env
                .fs
                .read_small(file, FILE_BYTES_MAX)
                .with_context(|| format!("cannot read the root {what} key from {}", file.display()))?;
            let text = String::from_utf8(bytes).with_context(|| format!("{} is not text", file.display()))?;
            Ok(Some(text.trim().to_owned()))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_defaults_and_short_secrets_are_refused() {
        let check = |access: &str, secret: &str| RootCredentials::checked(access.to_owned(), secret.to_owned()).is_ok();
        assert!(check("operator", "0123456789abcdef"));
        assert!(!check("minioadmin", "minioadmin"));
        assert!(!check("operator", "0123456789abcde"));
        assert!(!check("a/b", "0123456789abcdef"));
    }
}
