//! Logs and metrics.
pub mod metrics;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the log filter `{filter}` is not valid: {cause}; write levels like `info` or `portalkeeper=debug,warn`")]
pub struct LogError {
    filter: String,
    cause: String,
}

impl LogError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        "InvalidLogFilter"
    }
}

/// Sends log lines to standard error. The filter has the form of `RUST_LOG`. A second call changes nothing.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| LogError { filter: filter.to_owned(), cause: error.to_string() })?;
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured);
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
