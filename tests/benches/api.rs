//! The embedded API with many portals: start-up time and memory at 10,000 and 100,000, a list of 10,000, the way of a
//! write to ten watchers, and writes per second. Prints minimum, median and maximum.
//!
//! `cargo bench --bench api`. The big stores are made in memory (`/dev/shm`) where there is one, since they are only
//! read afterwards; writes are measured on disk.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::client::Body;
use portalkeeper::api::ResetPortal;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::apiserver::ApiServer;
use portalkeeper::apiserver::store::{Change, Key, Store, StoreError};
use serde_json::{Value, json};

const WATCHERS: usize = 10;
const ROUNDS: usize = 20;
const WRITES: usize = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` only wants to know that it starts.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match arguments.iter().position(|argument| argument == "--open") {
        Some(at) => runtime.block_on(open_and_tell(Path::new(&arguments[at + 1]))),
        None => runtime.block_on(measure()),
    }
}

fn resident_kibibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

async fn server(path: &Path) -> ApiServer {
    ApiServer::open(path, Arc::new(SystemClock)).await.expect("the API opens")
}

/// What a process of its own does with a store: opens it, and says how long that took and what it holds in memory.
async fn open_and_tell(path: &Path) {
    let (before, began) = (resident_kibibytes(), Instant::now());
    let _server = server(path).await;
    println!("{} {}", began.elapsed().as_micros(), resident_kibibytes() - before);
}

/// A portal as it stands in a store that is in use: with everything in its status, and both writers' fields.
async fn template(folder: &Path) -> Value {
    let client = server(&folder.join("template.db")).await.client("default");
    portalkeeper::app::install::definitions(&client).await.expect("the definitions");
    let portals: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    let portal = json!({
        "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal", "metadata": {"name": "template"},
        "spec": {"domain": "template.example", "branding": {"title": "Customer", "theme": "Auto"}},
    });
    let apply = PatchParams::apply("kubectl");
    portals.patch("template", &apply, &Patch::Apply(&portal)).await.expect("a portal");
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Programmed", "lastTransitionTime": "2026-11-24T10:00:00Z",
            "message": "reset.template.example is as it should be, seen by a read of the system itself",
            "observedGeneration": 1,
        })
    };
    let kinds =
        ["Accepted", "Claimed", "DNSProgrammed", "RouteProgrammed", "SenderVerified", "ProviderReady", "Live", "Ready"];
    let status = json!({"status": {
        "host": "reset.template.example", "url": "https://reset.template.example", "backend": "caddy",
        "className": "default", "lastProof": "2026-11-24T10:00:00Z",
        "conditions": kinds.map(condition),
        "resources": [
            {"system": "cloudflare", "name": "reset.template.example", "id": "372e67954025e0ba6aaa6d586b9e0b59"},
            {"system": "caddy/127.0.0.1:2019", "name": "reset.template.example", "id": "pk1_00c0ffee00c0ffee_template"},
        ],
    }});
    let patch = PatchParams { field_manager: Some("portalkeeper".to_owned()), ..Default::default() };
    portals.patch_status("template", &patch, &Patch::Merge(&status)).await.expect("a status");
    let path = "/apis/portalkeeper.dev/v1alpha1/namespaces/default/resetportals/template";
    let request = hyper::Request::get(path).body(Vec::new()).expect("a request");
    client.request(request).await.expect("the portal")
}

/// A store with so many portals, beside the definitions.
async fn fill(folder: &Path, template: &Value, count: usize) -> PathBuf {
    let path = folder.join(format!("{count}.db"));
    portalkeeper::app::install::definitions(&server(&path).await.client("default")).await.expect("the definitions");
    let store = Store::open(&path).await.expect("a store");
    for number in 0..count {
        let name = format!("portal-{number:06}");
        let text = template.to_string().replace("template", &name);
        let mut portal: Value = serde_json::from_str(&text).expect("JSON");
        portal["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        let key = Key { resource: "resetportals.portalkeeper.dev".into(), namespace: "default".into(), name };
        store.transact::<StoreError>(&key, |_| Ok(Change::Put(portal))).await.expect("a write");
    }
    path
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{what}: min {:.2}, median {:.2}, max {:.2} ms of {}",
        milliseconds(times[0]),
        milliseconds(times[times.len() / 2]),
        milliseconds(times[times.len() - 1]),
        times.len()
    );
}

async fn measure() {
    let disk = tempfile::tempdir().expect("a folder");
    let memory = match Path::new("/dev/shm") {
        shm if shm.is_dir() => tempfile::tempdir_in(shm).expect("a folder in memory"),
        _ => tempfile::tempdir().expect("a folder"),
    };
    let template = template(disk.path()).await;
    println!("one portal: {} bytes of JSON", template.to_string().len());

    let mut resident = Vec::new();
    let mut ten_thousand = None;
    for count in [0, 10_000, 100_000] {
        let path = fill(memory.path(), &template, count).await;
        let mut times = Vec::new();
        let mut kibibytes = u64::MAX;
        for _ in 0..5 {
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["--open", path.to_str().expect("a path")])
                .output()
                .expect("the program runs");
            let words = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut numbers = words.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            times.push(Duration::from_micros(numbers.next().expect("a time")));
            kibibytes = kibibytes.min(numbers.next().expect("a size"));
        }
        told(&format!("start with {count} portals"), times);
        resident.push(kibibytes);
        if count == 10_000 {
            ten_thousand = Some(path);
        } else {
            let _ = std::fs::remove_file(path);
        }
    }
    for (count, index) in [(10_000, 1), (100_000, 2)] {
        let kibibytes = resident[index].saturating_sub(resident[0]) as f64;
        println!("memory with {count} portals: {:.2} KiB each", kibibytes / f64::from(count));
    }

    let server = server(&ten_thousand.expect("made above")).await;
    lists(&server).await;
    watches(&server).await;
    drop(server);
    writes(disk.path(), &template).await;
}

async fn lists(server: &ApiServer) {
    let client = server.client("default");
    let portals: Api<ResetPortal> = Api::all(client.clone());
    let (mut texts, mut typed, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let request = hyper::Request::get("/apis/portalkeeper.dev/v1alpha1/resetportals");
        let response = client.send(request.body(Body::empty()).expect("a request")).await.expect("a list");
        let length = response.into_body().collect().await.expect("its text").to_bytes().len();
        texts.push(began.elapsed());
        assert!(length > 10_000_000, "{length}");

        let began = Instant::now();
        assert_eq!(portals.list(&ListParams::default()).await.expect("a list").items.len(), 10_000);
        typed.push(began.elapsed());

        let began = Instant::now();
        let none = portals.list(&ListParams::default().labels("app=none")).await.expect("a list");
        selected.push(began.elapsed());
        assert!(none.items.is_empty());
    }
    told("list of 10000 portals, as text", texts);
    told("list of 10000 portals, read into types by the client", typed);
    told("list of 10000 portals by a label that none has", selected);
}

/// From the begin of a write to its arrival at the last of the watchers.
async fn watches(server: &ApiServer) {
    let portals: Api<ResetPortal> = Api::namespaced(server.client("default"), "default");
    let version = portals.list(&ListParams::default().limit(1)).await.expect("a list").metadata.resource_version;
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..WATCHERS {
        let (portals, arrived) = (portals.clone(), arrived.clone());
        let version = version.clone().expect("a version");
        tokio::spawn(async move {
            let events = portals.watch(&WatchParams::default(), &version).await.expect("a watch");
            let mut events = std::pin::pin!(events);
            while let Ok(Some(event)) = events.try_next().await {
                if matches!(event, WatchEvent::Modified(_)) {
                    let _ = arrived.send(Instant::now());
                }
            }
        });
    }
    let (mut first, mut last, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WRITES {
        let name = format!("portal-{:06}", round * 17 % 10_000);
        let patch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        let began = Instant::now();
        portals.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a write");
        written.push(began.elapsed());
        let mut times = Vec::new();
        while times.len() < WATCHERS {
            times.push(arrivals.recv().await.expect("an event") - began);
        }
        times.sort();
        first.push(times[0]);
        last.push(times[WATCHERS - 1]);
    }
    told("write among 10000 portals, until answered", written);
    told("write among 10000 portals, until the first of 10 watchers has it", first);
    told("write among 10000 portals, until the last of 10 watchers has it", last);
}

async fn writes(folder: &Path, template: &Value) {
    let client = server(&folder.join("template.db")).await.client("default");
    let portals: Api<ResetPortal> = Api::namespaced(client, "default");
    let portal = |name: String| {
        let spec = json!({"domain": format!("{name}.example")});
        let object = json!({
            "apiVersion": template["apiVersion"], "kind": template["kind"], "metadata": {"name": name}, "spec": spec,
        });
        serde_json::from_value::<ResetPortal>(object).expect("a portal")
    };
    for clients in [1, 16] {
        let began = Instant::now();
        futures_util::stream::iter(0..WRITES)
            .for_each_concurrent(clients, |number| {
                let portal = portal(format!("w{clients}-{number}"));
                let portals = portals.clone();
                async move {
                    portals.create(&PostParams::default(), &portal).await.expect("a write");
                }
            })
            .await;
        let rate = WRITES as f64 / began.elapsed().as_secs_f64();
        println!("creations on disk by {clients} clients at once: {rate:.0} a second");
    }
}
