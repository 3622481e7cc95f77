//! Where logs go: standard error, as text or as one JSON object per line.

use std::io::{self, IsTerminal};

use orlop::config::Config;
use tracing::level_filters::LevelFilter;

/// Starts logging. Levels and formats were checked when the configuration was read.
pub(crate) fn start(config: &Config) {
    let level = config.log_level.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    if config.log_format == "json" {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
}
