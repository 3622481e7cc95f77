//! Configuration: a TOML file, the environment and flags, in rising order; none of them is needed.
//!
//! `settings` is the table of all settings with their bounds, `value` reads and writes their texts, `memory` lowers defaults
//! where there is little of it. A key that the table
//! does not have is refused by name: a setting with a typing error would otherwise silently keep its default. Only a
//! variable of the environment is passed over with a warning, as others put some there too (Kubernetes does so for
//! every service). Policies are the one list: tables `[[policies]]` of the file (`policies`), and nowhere else.
//!
//! The setting `http.connections_max` is the variable `ORLOP_HTTP_CONNECTIONS_MAX`.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    collect::CollectOptions,
    http::{Limits, PaceLimits, server::ServerLimits},
    policy::Policy,
    registry::{RegistryOptions, Sparse},
    store::StoreOptions,
};
use settings::{SETTINGS, Setting};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod memory;
mod policies;
mod settings;
mod value;

/// What the names of variables begin with.
pub const VARIABLE_PREFIX: &str = "ORLOP_";
/// The variable that names the file; it is no setting.
pub const FILE_VARIABLE: &str = "ORLOP_CONFIG";
/// The variable that names the server which administrative commands ask; it is no setting.
pub const SERVER_VARIABLE: &str = "ORLOP_SERVER";

/// A size in bytes as settings are written (`20GiB`, `4096`); `None` for anything else.
pub fn parse_bytes(text: &str) -> Option<u64> {
    value::bytes(text, (0, u64::MAX))
}

/// All settings. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Host and port to listen on.
    pub listen: String,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// How: `text` or `json`.
    pub log_format: String,
    /// Bounds of connections.
    pub server: ServerLimits,
    /// Bounds of requests.
    pub http: Limits,
    /// Limits of the registry.
    pub registry: RegistryOptions,
    /// How long an upload is kept that nobody writes to.
    pub upload_idle: Duration,
    /// Settings of the store.
    pub store: StoreOptions,
    /// Settings of the collector.
    pub collect: CollectOptions,
    /// What is said for repositories, in the order of the file.
    pub policies: Vec<Policy>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            listen: "127.0.0.1:5000".to_owned(),
            log_level: "info".to_owned(),
            log_format: "text".to_owned(),
            server: ServerLimits {
                connections_max: 512,
                connection_wait: Duration::from_secs(2),
                header_timeout: Duration::from_secs(30),
                header_bytes_max: 32 << 10,
                pace: PaceLimits { window: Duration::from_secs(60), bytes_min: 64 << 10 },
                shutdown_grace: Duration::from_secs(30),
            },
            http: Limits {
                uri_bytes_max: 8 << 10,
                request_timeout: Duration::from_secs(60),
                blob_bytes_max: 1 << 40,
                body_memory_bytes: 128 << 20,
                blocking_threads: 64,
                blocking_queue: 1024,
                api_hosts: Vec::new(),
                verify_memory_bytes: 1 << 30,
                verify_bytes_per_second: 64 << 20,
                verify_opening: false,
            },
            registry: RegistryOptions {
                manifest_bytes_max: 4 << 20,
                references_max: 30_000,
                json_depth_max: 64,
                uploads_max: 10_000,
                sparse: Sparse::Off,
            },
            upload_idle: Duration::from_secs(24 * 60 * 60),
            store: StoreOptions::default(),
            collect: CollectOptions::default(),
            policies: Vec::new(),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The program.
    Default,
    /// The configuration file.
    File,
    /// A variable of the environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The answer of the system.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {problem}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and what.
        problem: String,
    },
    /// There is no such setting.
    #[error("there is no setting \"{key}\"; the nearest is \"{nearest}\"")]
    Unknown {
        /// What was set.
        key: String,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// A value that the setting does not take.
    #[error("{key} = \"{value}\" ({origin}) is not accepted: {accepted}")]
    Value {
        /// The setting.
        key: &'static str,
        /// The value.
        value: String,
        /// Where it comes from.
        origin: Origin,
        /// What is accepted.
        accepted: String,
    },
    /// One of the policies.
    #[error("{}: policy {number} (line {line}): {problem}", file.display())]
    Policy {
        /// The file.
        file: PathBuf,
        /// Which, from 1.
        number: usize,
        /// The line in which it begins.
        line: usize,
        /// The field, and why it is not accepted.
        problem: String,
    },
    /// Two values that do not go together.
    #[error("{key} = {value} is not accepted: {reason}")]
    Conflict {
        /// One of the settings.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What it has to do with which other.
        reason: String,
    },
}

/// Where settings are read from.
#[derive(Debug, Default)]
pub struct Layers<'a> {
    /// The configuration file.
    pub file: Option<&'a Path>,
    /// Variables; those that don't begin with [`VARIABLE_PREFIX`] are none of ours.
    pub environment: Vec<(String, String)>,
    /// Settings from the command line.
    pub flags: Vec<(&'static str, String)>,
    /// Memory that defaults have to fit into, in bytes; `None` for more than enough. See [`memory::available`].
    pub memory_bytes: Option<u64>,
}

/// A configuration, and how it came to be.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Variables that look like settings and are none.
    pub unknown_variables: Vec<String>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Reads all layers.
    ///
    /// # Errors
    /// [`ConfigError`]; the first one found.
    pub fn read(layers: &Layers<'_>) -> Result<Self, ConfigError> {
        let mut loaded = Self { config: Config::default(), unknown_variables: Vec::new(), origins: BTreeMap::new() };
        if let Some(bytes) = layers.memory_bytes {
            memory::fit(&mut loaded.config, bytes);
        }
        if let Some(file) = layers.file {
            loaded.read_file(file)?;
        }
        for (name, value) in &layers.environment {
            let ours = name.starts_with(VARIABLE_PREFIX) && ![FILE_VARIABLE, SERVER_VARIABLE].contains(&name.as_str());
            match SETTINGS.iter().find(|setting| variable(setting) == *name) {
                Some(setting) => loaded.set(setting, value, Origin::Environment)?,
                None if ours => loaded.unknown_variables.push(name.clone()),
                None => {}
            }
        }
        for (key, value) in &layers.flags {
            loaded.set(find(key)?, value, Origin::Flag)?;
        }
        settings::check(&loaded.config)?;
        Ok(loaded)
    }

    fn read_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        self.read_text(file, &text)
    }

    fn read_text(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            file: file.to_owned(),
            problem: error.to_string(),
        })?;
        self.read_table("", &table)?;
        self.config.policies = policies::read(file, text)?;
        Ok(())
    }

    /// Tables nest at most as deep as the keys of the settings, so unknown ones end the recursion.
    fn read_table(&mut self, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                _ if key == policies::KEY => {}
                toml::Value::Table(inner) if SETTINGS.iter().any(|setting| in_table(setting, &key)) => {
                    self.read_table(&format!("{key}."), inner)?;
                }
                // Named with what is in it, or the nearest setting would be one that looks like a table's name.
                toml::Value::Table(inner) if !inner.is_empty() => {
                    let first = inner.keys().next().map_or("", String::as_str);
                    find(&format!("{key}.{first}"))?;
                }
                toml::Value::String(text) => self.set(find(&key)?, text, Origin::File)?,
                other => self.set(find(&key)?, &other.to_string(), Origin::File)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, setting: &'static Setting, text: &str, origin: Origin) -> Result<(), ConfigError> {
        if let Err(accepted) = setting.kind.set(&mut self.config, text) {
            return Err(ConfigError::Value { key: setting.key, value: text.to_owned(), origin, accepted });
        }
        self.origins.insert(setting.key, origin);
        Ok(())
    }

    /// The effective configuration as a file that can be read again: each setting with its meaning, bounds and origin.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for setting in SETTINGS {
            let (head, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
            if head != table {
                text.push_str(&format!("[{head}]\n"));
                table = head;
            }
            let origin = self.origins.get(setting.key).copied().unwrap_or(Origin::Default);
            let (value, accepted) = (setting.kind.get(&self.config), setting.kind.accepted());
            text.push_str(&format!("# {}: {accepted}. ({origin})\n{name} = {value}\n\n", setting.about));
        }
        text.push_str(&policies::describe(&self.config.policies));
        text
    }
}

/// The variable of a setting.
fn variable(setting: &Setting) -> String {
    format!("{VARIABLE_PREFIX}{}", setting.key.replace('.', "_").to_uppercase())
}

fn in_table(setting: &Setting, table: &str) -> bool {
    setting.key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

fn find(key: &str) -> Result<&'static Setting, ConfigError> {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        return Ok(setting);
    }
    let nearest = SETTINGS.iter().map(|setting| setting.key).min_by_key(|known| value::distance(known, key));
    Err(ConfigError::Unknown { key: key.to_owned(), nearest: nearest.unwrap_or_default() })
}

#[cfg(test)]
mod tests;
