//! Where logs go: standard error, as text or as one JSON object per line.

use std::io::{self, IsTerminal};

use orlop::config::Config;
use tracing::level_filters::LevelFilter;

/// Starts logging. Levels and formats were checked when the configuration was read.
pub(crate) fn start(config: &Config) {
    start_at(config, level(config));
}

/// The same for commands of which people read the output: a line for each request would be in their way. Who sets another
/// level than the default gets it.
pub(crate) fn start_quiet(config: &Config) {
    let level = level(config);
    start_at(config, if level == LevelFilter::INFO { LevelFilter::WARN } else { level });
}

fn level(config: &Config) -> LevelFilter {
    config.log_level.parse().unwrap_or(LevelFilter::INFO)
}

fn start_at(config: &Config, level: LevelFilter) {
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    if config.log_format == "json" {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
}
