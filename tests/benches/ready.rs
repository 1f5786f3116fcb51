//! From creating one portal to `Ready=True`, in a running sandbox, through its HTTPS API as kubectl would; and
//! the memory of the process. Prints minimum, median and maximum.
//!
//! `cargo bench --bench ready --profile dev` measures the debug build, without it the optimised one is built.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use portalkeeper::api::ResetPortal;
use serde_json::json;

const ROUNDS: usize = 30;

struct Sandbox(Child);

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resident_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    tokio::runtime::Runtime::new().expect("a runtime").block_on(measure());
}

async fn measure() {
    portalkeeper::http::install_crypto_provider();
    let folder = tempfile::tempdir().expect("a folder");
    let free = "127.0.0.1:0";
    let mut child = Command::new(env!("CARGO_BIN_EXE_portalkeeper"))
        .args(["sandbox", "--data", "data", "--listen", free, "--api-listen", free])
        .args(["--health-listen", free, "--simulators-listen", free])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let reader = BufReader::new(child.stdout.take().expect("its output"));
    let pid = child.id();
    let _sandbox = Sandbox(child);
    reader.lines().map_while(Result::ok).find(|line| line.contains("Ctrl-C")).expect("the greeting");

    let config = Kubeconfig::read_from(folder.path().join("data/kubeconfig")).expect("a kubeconfig");
    let config =
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a configuration");
    let client = kube::Client::try_from(config).expect("a client");
    let api: Api<ResetPortal> = Api::namespaced(client, "default");
    let portal: ResetPortal = serde_json::from_value(json!({
        "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal",
        "metadata": {"name": "initech"}, "spec": {"domain": "initech.localhost"},
    }))
    .expect("a portal");
    let (mut to_ready, mut to_gone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        api.create(&PostParams::default(), &portal).await.expect("created");
        until(&api, |portal| portal.is_some_and(is_ready)).await;
        to_ready.push(began.elapsed());
        let began = Instant::now();
        api.delete("initech", &DeleteParams::default()).await.expect("deleted");
        until(&api, |portal| portal.is_none()).await;
        to_gone.push(began.elapsed());
    }
    print("created to Ready=True", to_ready);
    print("deleted to gone", to_gone);
    println!("resident memory with three portals: {} MB", resident_kilobytes(pid) / 1024);
}

fn is_ready(portal: &ResetPortal) -> bool {
    let conditions = portal.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn until(api: &Api<ResetPortal>, wanted: impl Fn(Option<&ResetPortal>) -> bool) {
    let began = Instant::now();
    while !wanted(api.get_opt("initech").await.expect("an answer").as_ref()) {
        assert!(began.elapsed() < Duration::from_secs(30), "it takes too long");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{what}: minimum {:.0} ms, median {:.0} ms, maximum {:.0} ms ({} rounds)",
        milliseconds(times[0]),
        milliseconds(times[times.len() / 2]),
        milliseconds(times[times.len() - 1]),
        times.len()
    );
}
