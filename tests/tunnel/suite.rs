//! The scenarios that every backend passes, over the simulated tunnel.
use async_trait::async_trait;
use portalkeeper::api::HostName;
use portalkeeper::backends::cloudflare_tunnel::CloudflareTunnel;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::json;

use super::{ORIGIN, Stage, foreign_document, host, is_entry, rules_of};

struct Suite(Stage);

#[async_trait]
impl Harness for Suite {
    type Backend = CloudflareTunnel;
    fn backend(&self) -> CloudflareTunnel {
        self.0.backend_to(ORIGIN)
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let (config, entries) = (self.0.config(), self.0.ledger.all());
        let rules = config["ingress"].as_array().unwrap();
        let there = |rule: &&serde_json::Value| entries.iter().any(|entry| is_entry(rule, entry));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let mut owned: Vec<_> =
            rules.iter().filter(there).map(|rule| (text(&rule["hostname"]), text(&rule["service"]))).collect();
        owned.sort();
        owned
    }
    async fn foreign(&self) -> String {
        self.0.foreign()
    }
    async fn writes(&self) -> usize {
        self.0.writes()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.0.put_rule(json!({"hostname": host.as_str(), "service": "http://10.9.9.9:80"}));
    }
    async fn remove_foreign(&self, host: &HostName) {
        self.0.edit(|config| rules_of(config).retain(|rule| rule["hostname"] != host.as_str()));
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.0.running.faults.clear();
        if fail {
            let page = DoubleResponse::html(502, "<h1>Bad gateway</h1>");
            self.0.running.faults.push("GET", "/configurations", usize::MAX, Fault::Answer(page));
        }
        true
    }
    fn lose_next_answer(&self) -> bool {
        self.0.running.faults.push("PUT", "/configurations", 1, Fault::CutAfter);
        true
    }
    fn hosts(&self) -> Vec<HostName> {
        ["reset.acme.example", "reset.globex.example", "password.acme.example", "reset.mail.acme.example"]
            .map(host)
            .to_vec()
    }
}

#[tokio::test]
async fn conformance_of_cloudflare_tunnel() {
    conformance::run("cloudflare_tunnel", &Suite(Stage::with(foreign_document()).await)).await;
}
