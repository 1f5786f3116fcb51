//! The Traefik backend over a folder, and with real Traefiks that watch it.
mod files;
mod foreign;
mod origin_ca;
mod place;
mod real;
mod suite;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portalkeeper::api::{HostName, Origin};
use portalkeeper::backends::Programmed;
use portalkeeper::backends::traefik::{Layout, Routing, Traefik, TraefikOptions, Word};
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, RunningDouble};
use portalkeeper::http::{Client, ClientOptions};
use serde_json::{Value, json};
use url::Url;

use crate::peers::{Peer, Running, free_port};
use crate::scene::Scene;

/// Somebody's own file, with a comment and an odd order that must survive.
const THEIRS: &str = "# my own site\nhttp:\n  services:\n    own: {loadBalancer: {servers: [{url: 'http://127.0.0.1:9'}]}}\n  \
                      routers:\n    own: {rule: 'Host(`www.acme.example`)', service: own, entryPoints: [web]}\n";

fn theirs(host: &str) -> String {
    THEIRS.replace("www.acme.example", host).replace("own", "taken")
}

/// A folder that Traefik could watch, in a folder of its own.
pub struct Watched {
    outer: tempfile::TempDir,
}

impl Watched {
    fn new() -> Self {
        let outer = tempfile::tempdir().expect("a folder");
        let watched = Self { outer };
        std::fs::create_dir(watched.path()).expect("made");
        watched.write("own.yml", THEIRS);
        watched
    }
    pub fn path(&self) -> PathBuf {
        self.outer.path().join("dynamic")
    }
    fn write(&self, name: &str, text: &str) {
        // As an editor does it that is kind to watchers.
        let prepared = self.outer.path().join("prepared");
        std::fs::write(&prepared, text).expect("written");
        std::fs::rename(prepared, self.path().join(name)).expect("renamed");
    }
    /// As if our files had been there for so long that Traefik should have loaded them.
    fn age(&self) {
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(11);
        for name in self.ours() {
            let file = std::fs::File::options().write(true).open(self.path().join(name)).expect("there");
            file.set_modified(long_ago).expect("set");
        }
    }
    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).expect("removed");
    }
    /// Every file with its text, by name.
    pub fn files(&self) -> BTreeMap<String, String> {
        let files = std::fs::read_dir(self.path()).expect("readable").flatten().filter(|file| file.path().is_file());
        let named = files.map(|file| {
            (file.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(file.path()).expect("readable"))
        });
        named.collect()
    }
    pub fn ours(&self) -> Vec<String> {
        self.files().into_keys().filter(|name| name.starts_with("pk1-")).collect()
    }
    /// Changes whenever a file is written, even with the same text.
    fn writes(&self) -> usize {
        let mut state = DefaultHasher::new();
        for name in self.files().keys() {
            let meta = std::fs::metadata(self.path().join(name)).expect("there");
            (name, meta.ino(), meta.mtime(), meta.mtime_nsec()).hash(&mut state);
        }
        state.finish() as usize
    }
    fn options(&self, layout: Layout, origin: &str, api: Option<&str>) -> TraefikOptions {
        TraefikOptions {
            dynamic_dir: self.path(),
            layout,
            routing: Routing {
                origin: Origin::parse(origin).expect("an origin"),
                entry_points: vec![Word::parse("web").expect("a word")],
                resolver: None,
                https: false,
            },
            api_url: api.map(|api| Url::parse(api).expect("an address")),
            origin_ca: None,
        }
    }
    fn owned(&self) -> Vec<(String, String)> {
        let mut owned = Vec::new();
        for (name, text) in self.files().into_iter().filter(|(name, _)| name.starts_with("pk1-")) {
            let value: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
            for (router, body) in value["http"]["routers"].as_object().into_iter().flatten() {
                let rule = body["rule"].as_str().unwrap_or_default();
                let host = rule.trim_start_matches("Host(`").trim_end_matches("`)");
                let url = &value["http"]["services"][router]["loadBalancer"]["servers"][0]["url"];
                owned.push((host.to_owned(), url.as_str().unwrap_or_default().to_owned()));
            }
        }
        owned.sort();
        owned
    }
    fn foreign(&self) -> String {
        let foreign: Vec<_> = self.files().into_iter().filter(|(name, _)| !name.starts_with("pk1-")).collect();
        format!("{foreign:?}")
    }
    fn remove_foreign(&self, host: &HostName) {
        for (name, text) in self.files() {
            if !name.starts_with("pk1-") && text.contains(host.as_str()) {
                self.remove(&name);
            }
        }
    }
}

fn given(options: TraefikOptions) -> Scene {
    Scene::of(Traefik::new(options).expect("a backend"))
}

impl Scene {
    /// Wants it again and again, as the controller does, until Traefik has nothing against it.
    async fn confirmed(&self, name: &str) -> Programmed {
        self.until(name, |done| done.doubts.is_empty()).await
    }
    async fn until(&self, name: &str, holds: impl Fn(&Programmed) -> bool) -> Programmed {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let done = self.want(name).await.expect("wanted");
            if holds(&done) {
                return done;
            }
            assert!(Instant::now() < deadline, "{name}: {:?}", done.doubts);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Stands for the page server: says which host was asked for, and what a visitor managed to forge.
struct Pages;

impl Double for Pages {
    fn name(&self) -> &'static str {
        "pages"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
        let forged: Vec<String> = request
            .headers
            .iter()
            .filter(|(_, value)| value.contains("6.6.6.6") || value.contains("evil"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        DoubleResponse::text(200, &format!("portal {} {}", header("host"), forged.join(" ")))
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

/// A real Traefik that watches the folder.
pub struct Real {
    pub watched: Watched,
    origin: RunningDouble,
    pub api: String,
    pub listen: u16,
    process: Running,
    peer: PathBuf,
}

impl Real {
    pub async fn start(peer: &Peer, throttle: Duration) -> Self {
        let watched = Watched::new();
        let (api, listen) = (free_port(), free_port());
        let config = json!({
            "global": {"checkNewVersion": false, "sendAnonymousUsage": false},
            "entryPoints": {"web": {"address": format!("127.0.0.1:{listen}")}, "traefik": {"address": format!("127.0.0.1:{api}")}},
            "api": {"insecure": true},
            "log": {"level": "ERROR"},
            "providers": {
                "providersThrottleDuration": format!("{}ms", throttle.as_millis()),
                "file": {"directory": watched.path(), "watch": true},
                "rest": {"insecure": true},
            },
        });
        std::fs::write(watched.outer.path().join("traefik.yml"), config.to_string()).expect("written");
        let process = Self::run(&peer.program, watched.outer.path());
        let origin = RunningDouble::start(Arc::new(Pages)).await.expect("a loopback port");
        let api = format!("http://127.0.0.1:{api}");
        let real = Self { watched, origin, api, listen, process, peer: peer.program.clone() };
        real.wait_until_up().await;
        real
    }
    fn run(program: &Path, home: &Path) -> Running {
        Running::start(program, home, &["--configFile=traefik.yml"])
    }
    async fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.asks("/api/overview").await != 200 {
            assert!(Instant::now() < deadline, "traefik does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fn client(&self) -> Client {
        Client::new(ClientOptions::new("test", Url::parse(&self.api).expect("an address"))).expect("a client")
    }
    async fn asks(&self, path: &str) -> u16 {
        self.client().get(path).send().await.map_or(0, |answer| answer.status)
    }
    async fn visit(&self, host: &str) -> (u16, String) {
        let url = Url::parse(&format!("http://127.0.0.1:{}", self.listen)).expect("an address");
        let visitor = Client::new(ClientOptions::new("visitor", url)).expect("a client");
        let mut request = visitor.get("/").header("host", host);
        for name in
            ["x-forwarded-for", "x-real-ip", "forwarded", "cf-connecting-ip", "true-client-ip", "x_forwarded_for"]
        {
            request = request.header(name, "6.6.6.6");
        }
        for name in ["x-forwarded-host", "x-forwarded-server", "x-forwarded-prefix"] {
            request = request.header(name, "evil.example");
        }
        let answer = request.send().await.expect("an answer");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }
    /// Waits for what a visitor gets.
    pub async fn until_visited(&self, host: &str, status: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (got, body) = self.visit(host).await;
            if got == status {
                return body;
            }
            assert!(Instant::now() < deadline, "{host}: {got} and not {status}: {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fn options(&self, layout: Layout) -> TraefikOptions {
        self.watched.options(layout, &self.origin.address.to_string(), Some(&self.api))
    }
}
