//! The scenarios of every backend, over each version and each kind of certificate.
use async_trait::async_trait;
use portalkeeper::api::HostName;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::npm::Npm;
use portalkeeper::backends::npm::certificate::{Choice, Source};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::{Value, json};

use super::{Scene, VERSIONS, backend, lets_encrypt};
use crate::scene::four_hosts;

struct Simulated(Scene);

fn marked(row: &Value) -> bool {
    row["meta"]["portalkeeper"].is_object()
}

#[async_trait]
impl Harness for Simulated {
    type Backend = Npm;
    fn backend(&self) -> Npm {
        let Scene { running, clock, source, gate, book, pace, secret, .. } = &self.0;
        backend(running, clock, source.clone(), gate.clone(), book, *pace, secret)
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let text = |row: &Value| (row["domain_names"][0].as_str().unwrap_or_default().to_owned(), row.to_string());
        let mut owned: Vec<_> = self.0.double.hosts().iter().filter(|row| marked(row)).map(text).collect();
        owned.sort();
        owned
    }
    /// Rows without our mark, and certificates that no row of ours uses.
    async fn foreign(&self) -> String {
        let (ours, theirs): (Vec<Value>, Vec<Value>) = self.0.double.hosts().into_iter().partition(marked);
        let existing = matches!(self.0.source, Source::Existing(_));
        let used = |c: &Value| !existing && ours.iter().any(|row| row["certificate_id"] == c["id"]);
        let certificates: Vec<Value> = self.0.double.certificates().into_iter().filter(|c| !used(c)).collect();
        json!([theirs, certificates]).to_string()
    }
    async fn writes(&self) -> usize {
        self.0.running.log.writes().iter().filter(|call| call.path.contains("/nginx/")).count()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.0.double.add_host(&[host.as_str()], json!({"forward_host": "10.0.0.66"}));
    }
    async fn remove_foreign(&self, host: &HostName) {
        if let Some(row) = self.0.double.host(host.as_str()).filter(|row| !marked(row)) {
            self.0.double.remove_host(row["id"].as_u64().expect("an id"));
            if !matches!(self.0.source, Source::Existing(_)) {
                self.0.double.remove_certificate(row["certificate_id"].as_u64().unwrap_or(0));
            }
        }
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.0.running.faults.clear();
        if fail {
            self.0.running.faults.push("GET", "", usize::MAX, Fault::Answer(DoubleResponse::text(500, "oops")));
        }
        true
    }
    fn lose_next_answer(&self) -> bool {
        self.0.running.faults.push("POST", "/nginx/proxy-hosts", 1, Fault::CutAfter);
        true
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

async fn conforms(what: &str, source: impl Fn(&Scene) -> Source) {
    for version in VERSIONS {
        let mut scene = Scene::of(version, Source::None).await;
        scene.source = source(&scene);
        scene.double.add_host(&["www.acme.example", "acme.example"], json!({"advanced_config": "# mine"}));
        conformance::run(&format!("npm {version} {what}"), &Simulated(scene)).await;
    }
}

#[tokio::test]
async fn conformance_without_certificates() {
    conforms("without certificates", |_| Source::None).await;
}

#[tokio::test]
async fn conformance_with_lets_encrypt() {
    conforms("with Let's Encrypt", |_| lets_encrypt()).await;
}

#[tokio::test]
async fn conformance_with_the_origin_ca() {
    conforms("with the Origin CA", |_| Source::OriginCa).await;
}

#[tokio::test]
async fn conformance_with_an_existing_certificate() {
    conforms("with an existing certificate", |scene| {
        scene.double.add_certificate("other", "wildcard", &["*.example"], 300);
        Source::Existing(Choice::Name("wildcard".to_owned()))
    })
    .await;
}
