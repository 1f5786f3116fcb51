//! Every metric of the program.
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Metrics that this program offers.
struct Metrics {
    registry: Registry,
    outside_calls: IntCounterVec,
    outside_seconds: HistogramVec,
    resets: IntCounterVec,
    portals: IntGaugeVec,
    reconciles: IntCounterVec,
    changes: IntCounterVec,
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
    let counter = |name: &str, help: &str, labels: &[&str]| {
        IntCounterVec::new(Opts::new(name, help), labels).expect("a constant metric definition is valid")
    };
    let resets = counter(
        "portalkeeper_resets_total",
        "Requests for links and uses of links, by step (request, confirm) and result.",
        &["step", "result"],
    );
    let reconciles = counter(
        "portalkeeper_reconciles_total",
        "Looks at one portal, by the reason of its Ready condition.",
        &["reason"],
    );
    let changes = counter("portalkeeper_changes_total", "Writes to records and routes, by instance.", &["instance"]);
    let portals = IntGaugeVec::new(
        Opts::new("portalkeeper_portals", "Portals by the truth of their Ready condition."),
        &["ready"],
    )
    .expect("a constant metric definition is valid");
    for collector in [&outside_calls, &resets, &reconciles, &changes] {
        registry.register(Box::new(collector.clone())).expect("registered once");
    }
    registry.register(Box::new(outside_seconds.clone())).expect("registered once");
    registry.register(Box::new(portals.clone())).expect("registered once");
    Metrics { registry, outside_calls, outside_seconds, resets, portals, reconciles, changes }
});

/// Counts one try of a call to an outside system.
pub fn outside_call(system: &str, outcome: &str, took: Duration) {
    METRICS.outside_calls.with_label_values(&[system, outcome]).inc();
    METRICS.outside_seconds.with_label_values(&[system]).observe(took.as_secs_f64());
}

/// Counts a request for a link (`request`) or its use (`confirm`).
pub fn reset(step: &str, result: &str) {
    METRICS.resets.with_label_values(&[step, result]).inc();
}

/// Counts a look at one portal.
pub fn reconciled(reason: &str) {
    METRICS.reconciles.with_label_values(&[reason]).inc();
}

/// Counts writes to an instance.
pub fn changed(instance: &str, count: usize) {
    METRICS.changes.with_label_values(&[instance]).inc_by(count as u64);
}

/// Sets how many portals there are with this truth of Ready.
pub fn portals(ready: &str, count: i64) {
    METRICS.portals.with_label_values(&[ready]).set(count);
}

/// Every metric in Prometheus' text format.
pub fn text() -> String {
    TextEncoder::new().encode_to_string(&METRICS.registry.gather()).unwrap_or_default()
}
