//! The scenarios of every backend, over a folder and with real Traefiks watching.
use std::time::Duration;

use async_trait::async_trait;
use portalkeeper::api::HostName;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::traefik::{Layout, Traefik};

use super::{Real, Watched, theirs};
use crate::peers::traefiks;
use crate::scene::four_hosts;

struct Bench {
    watched: Watched,
    layout: Layout,
    api: Option<String>,
}

#[async_trait]
impl Harness for Bench {
    type Backend = Traefik;
    fn backend(&self) -> Traefik {
        let options = self.watched.options(self.layout, "127.0.0.1:5000", self.api.as_deref());
        Traefik::new(options).expect("a backend")
    }
    async fn owned(&self) -> Vec<(String, String)> {
        self.watched.owned()
    }
    async fn foreign(&self) -> String {
        self.watched.foreign()
    }
    async fn writes(&self) -> usize {
        self.watched.writes()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.watched.write("taken.yml", &theirs(host.as_str()));
    }
    async fn remove_foreign(&self, host: &HostName) {
        self.watched.remove_foreign(host);
    }
    fn fail_reads(&self, fail: bool) -> bool {
        let (there, away) = (self.watched.path(), self.watched.outer.path().join("away"));
        let moved = if fail { std::fs::rename(&there, &away) } else { std::fs::rename(&away, &there) };
        moved.expect("moved");
        if fail {
            // The suite counts writes while reads fail: an empty folder of another name would do, too.
            std::fs::create_dir(&there).expect("made");
            std::fs::remove_dir(&there).expect("removed");
        }
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
async fn conformance_over_a_folder_in_both_layouts() {
    for layout in [Layout::PerHost, Layout::Merged] {
        let bench = Bench { watched: Watched::new(), layout, api: None };
        conformance::run(&format!("traefik, {layout:?}"), &bench).await;
    }
}

#[tokio::test]
async fn conformance_with_real_traefiks_watching() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let Real { watched, api, process, .. } = real;
        let bench = Bench { watched, layout: Layout::PerHost, api: Some(api) };
        conformance::run(peer.name, &bench).await;
        drop(process);
    }
}
