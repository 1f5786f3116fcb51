//! The conformance suite.
use async_trait::async_trait;
use portalkeeper::api::HostName;
use portalkeeper::backends::cloudflare::CloudflareDns;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::http::double::{DoubleResponse, Fault};
use portalkeeper::plan::{Mark, Ownership};

use super::{Scene, TOKEN, dns, host};

#[async_trait]
impl Harness for Scene {
    type Backend = CloudflareDns;
    fn backend(&self) -> CloudflareDns {
        dns(&self.running, TOKEN, &self.budget)
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let records = self.double.records();
        let ours = records.iter().filter(|r| Mark::from_text(&text(&r["comment"])) != Ownership::Foreign);
        let mut owned: Vec<_> = ours.map(|r| (text(&r["name"]), text(&r["content"]))).collect();
        owned.sort();
        owned
    }
    async fn foreign(&self) -> String {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let records = self.double.records();
        let foreign = records.iter().filter(|r| Mark::from_text(&text(&r["comment"])) == Ownership::Foreign);
        format!("{:?}", foreign.collect::<Vec<_>>())
    }
    async fn writes(&self) -> usize {
        self.running.log.writes().len()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.double.put_foreign(host.as_str(), "CNAME", "somewhere.example");
    }
    async fn remove_foreign(&self, host: &HostName) {
        self.double.remove(host.as_str());
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.running.faults.clear();
        if fail {
            let page = DoubleResponse::html(502, "<h1>Bad gateway</h1>");
            self.running.faults.push("GET", "/dns_records", usize::MAX, Fault::Answer(page));
        }
        true
    }
    fn lose_next_answer(&self) -> bool {
        self.running.faults.push("POST", "/dns_records", 1, Fault::CutAfter);
        true
    }
    fn hosts(&self) -> Vec<HostName> {
        ["reset.acme.example", "reset.globex.example", "password.acme.example", "reset.mail.acme.example"]
            .map(host)
            .to_vec()
    }
}

#[tokio::test]
async fn conformance_of_cloudflare_records() {
    conformance::run("cloudflare", &Scene::given().await).await;
}
