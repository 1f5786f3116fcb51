//! The program killed at any instant: the end state is as if it never was.
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use portalkeeper::api::{PortalClaim, PortalClass, ResetPortal};
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::cloudflare_api::double::{ACCOUNT, CloudflareDouble};
use portalkeeper::http::double::RunningDouble;
use serde_json::{Value, json};

use crate::peers::free_port;
use crate::process::command;
use crate::world::portal;

const ROUNDS: usize = 100;
/// A life in which nothing more happens is ended after this time.
const LONGEST_LIFE: Duration = Duration::from_secs(1);
const PORTALS: usize = 20;
pub const TOKEN: &str = "crash-test-token";

pub struct Ports {
    pub pages: u16,
    pub api: u16,
    pub health: u16,
}

/// The running program, killed with this value.
pub struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL: nothing is finished, nothing is flushed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn start(folder: &Path, ports: &Ports) -> Program {
    let at = |port: u16| format!("127.0.0.1:{port}");
    let child = command(folder)
        .args([
            "standalone",
            "--data",
            "data",
            "--log",
            "off",
            "--listen",
            &at(ports.pages),
            "--api-listen",
            &at(ports.api),
        ])
        .args(["--health-listen", &at(ports.health)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Program(child)
}

/// A client of the started program, as soon as it answers.
pub async fn connect(folder: &Path) -> kube::Client {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(config) = Kubeconfig::read_from(folder.join("data/kubeconfig"))
            && let Ok(config) = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await
            && let Ok(client) = kube::Client::try_from(config)
            && Api::<PortalClass>::all(client.clone()).list(&ListParams::default()).await.is_ok()
        {
            return client;
        }
        assert!(Instant::now() < end, "the program does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The tunnel of the run that has one, with what somebody else keeps in it.
const TUNNEL: &str = "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d";

fn others_rules() -> Value {
    json!({"ingress": [
        {"hostname": "*.localhost", "service": "http://10.0.0.1:80", "originRequest": {"noTLSVerify": true}},
        {"service": "http_status:404"},
    ]})
}

/// The Secret and a class for these.
pub fn class(cloudflare: &RunningDouble, proxy: Value, ports: &Ports) -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crash", "namespace": "portalkeeper"},
            "stringData": {"token": TOKEN},
        }),
        json!({
            "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": "crash"},
            "spec": {
                "default": true,
                "cloudflare": {
                    "apiUrl": format!("{}client/v4", cloudflare.url), "accountId": ACCOUNT,
                    "apiTokenSecretRef": {"name": "crash", "key": "token"},
                },
                "cnameTarget": "edge.crash.localhost",
                "proxy": proxy,
                "publicScheme": "http", "publicPort": ports.pages,
                // Straight to the pages: what is proved here is that the portal is served.
                "probe": {"address": format!("127.0.0.1:{}", ports.pages)},
            },
        }),
    ]
}

/// A small generator, so that a failing run can be made again from its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn name(index: usize) -> String {
    format!("p{index:02}")
}

/// What somebody does to a portal: declares it, or deletes it. The program may be gone meanwhile.
async fn act(client: &kube::Client, index: usize, wanted: bool) {
    let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    if wanted {
        let object: ResetPortal =
            serde_json::from_value(portal(&name(index), json!({"domain": format!("d{index:02}.localhost")}))).unwrap();
        let _ = api.create(&PostParams::default(), &object).await;
    } else {
        let _ = api.delete(&name(index), &DeleteParams::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_leave_no_orphan_and_no_duplicate() {
    let caddy = Arc::new(CaddyDouble::new());
    let caddy_api = RunningDouble::start(caddy.clone()).await.unwrap();
    let proxy = |origin: &str| json!({"caddy": {"adminUrl": caddy_api.url.as_str(), "origin": origin}});
    let cloudflare = Arc::new(CloudflareDouble::new());
    let counts = |host: &str| caddy.config().to_string().matches(&format!("[\"{host}\"]")).count();
    kills(ROUNDS, &cloudflare, proxy, counts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_beside_a_tunnel_leave_what_others_have_in_it() {
    let cloudflare = Arc::new(CloudflareDouble::new());
    cloudflare.add_tunnel(TUNNEL, others_rules());
    let proxy = |origin: &str| json!({"cloudflareTunnel": {"tunnelId": TUNNEL, "origin": format!("http://{origin}")}});
    let rules = || cloudflare.tunnel_document(TUNNEL).0["ingress"].as_array().unwrap().clone();
    let counts = |host: &str| rules().iter().filter(|rule| rule["hostname"] == host).count();
    kills(ROUNDS / 4, &cloudflare, proxy, counts).await;
    let ours = |rule: &Value| rule["hostname"].as_str().is_some_and(|host| host.starts_with("reset."));
    let left: Vec<Value> = rules().into_iter().filter(|rule| !ours(rule)).collect();
    assert_eq!(json!({"ingress": left}).to_string(), others_rules().to_string());
}

/// Lives of the program over one Cloudflare and a proxy that `proxy` describes for an origin; `routes` counts those of a
/// host in it.
async fn kills(
    rounds: usize,
    cloudflare: &Arc<CloudflareDouble>,
    proxy: impl Fn(&str) -> Value,
    routes: impl Fn(&str) -> usize,
) {
    portalkeeper::http::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    cloudflare.accept_token(TOKEN);
    // A hundred starts within minutes are more than a person's day.
    cloudflare.set_quota(1_000_000);
    for index in 0..PORTALS {
        cloudflare.add_zone(&format!("d{index:02}.localhost"));
    }
    let cloudflare_api = RunningDouble::start(cloudflare.clone()).await.unwrap();
    let ports = Ports { pages: free_port(), api: free_port(), health: free_port() };
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut dice = Dice(seed);
    {
        let _program = start(folder.path(), &ports);
        let client = connect(folder.path()).await;
        for object in class(&cloudflare_api, proxy(&format!("127.0.0.1:{}", ports.pages)), &ports) {
            portalkeeper::app::install::put(&client, &portalkeeper::app::install::resource(&object), &object)
                .await
                .unwrap();
        }
    }
    // given many lives, each ended in the middle of whatever it was doing
    for _ in 0..rounds {
        let program = start(folder.path(), &ports);
        let client = connect(folder.path()).await;
        let acts = (0..PORTALS).map(|index| {
            let wanted = dice.below(2) == 0;
            let client = client.clone();
            async move { act(&client, index, wanted).await }
        });
        let acts: Vec<_> = acts.collect();
        // It is killed some milliseconds after some writes, on a slow machine as on a quick one.
        let (enough, late) = (cloudflare_api.log.writes().len() + dice.below(8) as usize, dice.below(30));
        let life = async {
            let written = async {
                while cloudflare_api.log.writes().len() < enough {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // There may be less to do than that.
            let _ = tokio::time::timeout(LONGEST_LIFE, written).await;
            tokio::time::sleep(Duration::from_millis(late)).await;
        };
        let living = async {
            futures_util::future::join_all(acts).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = living => {}
            () = life => {}
        }
        drop(program);
    }
    // (and it did do things in them, though on a busy machine many end before their first write)
    assert!(
        cloudflare_api.log.writes().len() * 4 > rounds,
        "too few writes for a test: {}",
        cloudflare_api.log.writes().len()
    );
    // when it is left alone with what is wanted now
    let _program = start(folder.path(), &ports);
    let client = connect(folder.path()).await;
    let wanted = |index: usize| index.is_multiple_of(2);
    let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    let end = Instant::now() + Duration::from_secs(90);
    let mut wrong = String::from("nothing looked at yet");
    while !wrong.is_empty() {
        assert!(Instant::now() < end, "seed {seed}: {wrong}");
        for index in 0..PORTALS {
            act(&client, index, wanted(index)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        wrong.clear();
        let portals = api.list(&ListParams::default()).await.unwrap().items;
        for index in 0..PORTALS {
            let found = portals.iter().find(|portal| portal.metadata.name.as_deref() == Some(&name(index)));
            let ready = found.is_some_and(|portal| {
                portal.metadata.deletion_timestamp.is_none()
                    && crate::world::condition_of(portal, "Ready").is_some_and(|c| c.status == "True")
            });
            if found.is_some() != wanted(index) || ready != wanted(index) {
                let words = found.and_then(|p| crate::world::condition_of(p, "Ready")).map(|c| c.message);
                wrong = format!("{} is not as wanted: {words:?}", name(index));
            }
        }
    }
    // then outside stands exactly that, once
    let expected: Vec<String> =
        (0..PORTALS).filter(|index| wanted(*index)).map(|index| format!("reset.d{index:02}.localhost")).collect();
    let mut records: Vec<String> =
        cloudflare.records().iter().filter_map(|record| record["name"].as_str().map(str::to_owned)).collect();
    records.sort();
    assert_eq!(records, expected, "seed {seed}: records");
    for index in 0..PORTALS {
        let host = format!("reset.d{index:02}.localhost");
        assert_eq!(routes(&host), usize::from(wanted(index)), "seed {seed}: routes of {host}");
    }
    let claims = Api::<PortalClaim>::all(client.clone()).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(claims.len(), expected.len() * 2, "seed {seed}: claims");
}
