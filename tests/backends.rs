//! The conformance suite over the backend in memory, which the suite itself is tested by.
use async_trait::async_trait;
use portalkeeper::api::HostName;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::memory::Memory;
use portalkeeper::plan::Ownership;

use crate::scene::four_hosts;

struct InMemory(Memory);

#[async_trait]
impl Harness for InMemory {
    type Backend = Memory;
    fn backend(&self) -> Memory {
        self.0.clone()
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let marked = self.0.things().into_iter().filter(|t| matches!(t.ownership, Ownership::Marked(_)));
        let mut owned: Vec<_> = marked.map(|t| (t.item.host, t.item.target)).collect();
        owned.sort();
        owned
    }
    async fn foreign(&self) -> String {
        let foreign = self.0.things().into_iter().filter(|t| t.ownership == Ownership::Foreign);
        format!("{:?}", foreign.map(|t| t.item).collect::<Vec<_>>())
    }
    async fn writes(&self) -> usize {
        self.0.writes()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.0.put_foreign(host.as_str(), "somewhere.example");
    }
    async fn remove_foreign(&self, host: &HostName) {
        self.0.remove(host.as_str());
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.0.fail_reads(fail);
        true
    }
    fn lose_next_answer(&self) -> bool {
        false
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

#[tokio::test]
async fn conformance_of_the_memory_backend() {
    let memory = Memory::default();
    memory.put_foreign("www.acme.example", "192.0.2.1");
    conformance::run("memory", &InMemory(memory)).await;
}
