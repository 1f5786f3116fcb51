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

/// What is not logged unless the filter names it: the verifier of certificates calls each one that it refuses an error,
/// and each refusal is told where it matters, by the condition or the error that it leads to.
const QUIET: &str = "rustls_platform_verifier=off";

/// A directive of the user's for the same target comes later and wins.
fn filter(text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(format!("{QUIET},{text}"))
        .map_err(|error| LogError { filter: text.to_owned(), cause: error.to_string() })
}

/// Sends log lines to standard error. The filter has the form of `RUST_LOG`. A second call changes nothing.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = self::filter(filter)?;
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured);
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Whether errors of the verifier and information of ours are logged.
    fn logged(text: &str) -> (bool, bool) {
        let subscriber =
            tracing_subscriber::registry().with(filter(text).unwrap()).with(tracing_subscriber::fmt::layer());
        tracing::subscriber::with_default(subscriber, || {
            let theirs = tracing::enabled!(target: "rustls_platform_verifier::verification", tracing::Level::ERROR);
            (theirs, tracing::enabled!(target: "portalkeeper", tracing::Level::INFO))
        })
    }

    #[test]
    fn refused_certificates_are_no_errors_in_the_log_unless_the_filter_names_their_verifier() {
        assert_eq!(logged("info"), (false, true));
        assert_eq!(logged("portalkeeper=debug,warn"), (false, true));
        assert_eq!(logged("rustls_platform_verifier=error"), (true, false));
        assert_eq!(logged("info,rustls_platform_verifier=debug"), (true, true));
        let error = filter("portalkeeper=loud").unwrap_err().to_string();
        assert!(error.starts_with("the log filter `portalkeeper=loud` is not valid"), "{error}");
    }
}
