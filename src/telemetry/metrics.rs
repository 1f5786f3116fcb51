//! Every metric of the program.
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

/// Metrics that this program offers.
struct Metrics {
    registry: Registry,
    outside_calls: IntCounterVec,
    outside_seconds: HistogramVec,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let registry = Registry::new();
    // Names and labels are constants of this file and each is registered once: neither step can fail.
    let outside_calls = IntCounterVec::new(
        Opts::new("portalkeeper_http_requests_total", "Calls to outside systems, by system and outcome."),
        &["system", "outcome"],
    )
    .expect("a constant metric definition is valid");
    let outside_seconds = HistogramVec::new(
        HistogramOpts::new("portalkeeper_http_request_seconds", "Length of calls to outside systems in seconds."),
        &["system"],
    )
    .expect("a constant metric definition is valid");
    registry.register(Box::new(outside_calls.clone())).expect("registered once");
    registry.register(Box::new(outside_seconds.clone())).expect("registered once");
    Metrics { registry, outside_calls, outside_seconds }
});

/// Counts one try of a call to an outside system.
pub fn outside_call(system: &str, outcome: &str, took: Duration) {
    METRICS.outside_calls.with_label_values(&[system, outcome]).inc();
    METRICS.outside_seconds.with_label_values(&[system]).observe(took.as_secs_f64());
}

/// Every metric in Prometheus' text format.
pub fn text() -> String {
    TextEncoder::new().encode_to_string(&METRICS.registry.gather()).unwrap_or_default()
}
