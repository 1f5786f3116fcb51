//! Every metric of the program.
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// A metric as it is documented: name, kind, labels, help.
pub struct Metric {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const OUTSIDE_CALLS: Metric = Metric {
    name: "portalkeeper_http_requests_total",
    kind: "counter",
    labels: &["system", "outcome"],
    help: "Calls to outside systems, by system and outcome.",
};
const OUTSIDE_SECONDS: Metric = Metric {
    name: "portalkeeper_http_request_seconds",
    kind: "histogram",
    labels: &["system"],
    help: "Length of calls to outside systems in seconds.",
};
const RESETS: Metric = Metric {
    name: "portalkeeper_resets_total",
    kind: "counter",
    labels: &["step", "result"],
    help: "Requests for links and uses of links, by step (request, confirm) and result.",
};
const RECONCILES: Metric = Metric {
    name: "portalkeeper_reconciles_total",
    kind: "counter",
    labels: &["reason"],
    help: "Looks at one portal, by the reason of its Ready condition.",
};
const CHANGES: Metric = Metric {
    name: "portalkeeper_changes_total",
    kind: "counter",
    labels: &["instance"],
    help: "Writes to records and routes, by instance.",
};
const PROBES: Metric = Metric {
    name: "portalkeeper_probes_total",
    kind: "counter",
    labels: &["result"],
    help: "Proofs of life that were asked for, by what was seen (Proved, or the reason of Live).",
};
const REPAIRS: Metric = Metric {
    name: "portalkeeper_repairs_total",
    kind: "counter",
    labels: &["instance"],
    help: "Records and routes that somebody else had changed and that were put right, by instance.",
};
const FOREIGN_WRITES_LOST: Metric = Metric {
    name: "portalkeeper_foreign_writes_lost_total",
    kind: "counter",
    labels: &["instance"],
    help: "Writes of others to a shared document that one of ours may have replaced unseen, by instance.",
};
const PORTALS: Metric = Metric {
    name: "portalkeeper_portals",
    kind: "gauge",
    labels: &["ready"],
    help: "Portals by the truth of their Ready condition.",
};

const TOMBSTONES: Metric = Metric {
    name: "portalkeeper_tombstones",
    kind: "gauge",
    labels: &[],
    help: "Deleted portals of which something is left outside.",
};

/// Every metric, in the order of the documentation.
pub const ALL: [Metric; 10] = [
    PORTALS,
    TOMBSTONES,
    RECONCILES,
    PROBES,
    CHANGES,
    REPAIRS,
    FOREIGN_WRITES_LOST,
    OUTSIDE_CALLS,
    OUTSIDE_SECONDS,
    RESETS,
];

/// Metrics that this program offers.
struct Metrics {
    registry: Registry,
    outside_calls: IntCounterVec,
    outside_seconds: HistogramVec,
    resets: IntCounterVec,
    portals: IntGaugeVec,
    tombstones: IntGaugeVec,
    reconciles: IntCounterVec,
    changes: IntCounterVec,
    probes: IntCounterVec,
    repairs: IntCounterVec,
    foreign_writes_lost: IntCounterVec,
}

// Names and labels are constants of this file and each is registered once: no step can fail.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let registry = Registry::new();
    let counter = |metric: &Metric| {
        let made = IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels);
        let made = made.expect("a constant metric definition is valid");
        registry.register(Box::new(made.clone())).expect("registered once");
        made
    };
    let outside_seconds =
        HistogramVec::new(HistogramOpts::new(OUTSIDE_SECONDS.name, OUTSIDE_SECONDS.help), OUTSIDE_SECONDS.labels)
            .expect("a constant metric definition is valid");
    registry.register(Box::new(outside_seconds.clone())).expect("registered once");
    let gauge = |metric: &Metric| {
        let made = IntGaugeVec::new(Opts::new(metric.name, metric.help), metric.labels);
        let made = made.expect("a constant metric definition is valid");
        registry.register(Box::new(made.clone())).expect("registered once");
        made
    };
    let (portals, tombstones) = (gauge(&PORTALS), gauge(&TOMBSTONES));
    let (outside_calls, resets) = (counter(&OUTSIDE_CALLS), counter(&RESETS));
    let (reconciles, changes) = (counter(&RECONCILES), counter(&CHANGES));
    let (probes, repairs, foreign_writes_lost) = (counter(&PROBES), counter(&REPAIRS), counter(&FOREIGN_WRITES_LOST));
    Metrics {
        registry,
        outside_calls,
        outside_seconds,
        resets,
        portals,
        tombstones,
        reconciles,
        changes,
        probes,
        repairs,
        foreign_writes_lost,
    }
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

/// Counts a request for a proof of life.
pub fn probed(result: &str) {
    METRICS.probes.with_label_values(&[result]).inc();
}

/// Counts what was put right.
pub fn repaired(instance: &str) {
    METRICS.repairs.with_label_values(&[instance]).inc();
}

/// Counts a write of ours that may have replaced somebody else's.
pub fn foreign_write_lost(instance: &str) {
    METRICS.foreign_writes_lost.with_label_values(&[instance]).inc();
}

/// Sets how many portals there are with this truth of Ready.
pub fn portals(ready: &str, count: i64) {
    METRICS.portals.with_label_values(&[ready]).set(count);
}

/// Sets of how many deleted portals something is left.
pub fn tombstones(count: usize) {
    METRICS.tombstones.with_label_values::<&str>(&[]).set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// Every metric in Prometheus' text format.
pub fn text() -> String {
    TextEncoder::new().encode_to_string(&METRICS.registry.gather()).unwrap_or_default()
}
