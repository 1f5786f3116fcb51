//! The Traefik backend over a folder, and with real Traefiks that watch it.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::condition::Truth;
use portalkeeper::api::{HostName, Origin, PortalKey};
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::traefik::{Layout, Routing, Traefik, TraefikOptions, Word};
use portalkeeper::backends::{BackendError, ErrorClass, Programmed, Want, Worker};
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, RunningDouble};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::http::{Client, ClientOptions};
use portalkeeper::plan::{CertificateMode, InstallationId, Intent, Mark};
use serde_json::{Value, json};
use url::Url;

use crate::peers::{Peer, Running, free_port, traefiks};

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host name")
}

/// Somebody's own file, with a comment and an odd order that must survive.
const THEIRS: &str = "# my own site\nhttp:\n  services:\n    own: {loadBalancer: {servers: [{url: 'http://127.0.0.1:9'}]}}\n  \
                      routers:\n    own: {rule: 'Host(`www.acme.example`)', service: own, entryPoints: [web]}\n";

fn theirs(host: &str) -> String {
    THEIRS.replace("www.acme.example", host).replace("own", "taken")
}

/// A folder that Traefik could watch, in a folder of its own.
struct Watched {
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
    fn path(&self) -> PathBuf {
        self.outer.path().join("dynamic")
    }
    fn write(&self, name: &str, text: &str) {
        // As an editor does it that is kind to watchers.
        let prepared = self.outer.path().join("prepared");
        std::fs::write(&prepared, text).expect("written");
        std::fs::rename(prepared, self.path().join(name)).expect("renamed");
    }
    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).expect("removed");
    }
    /// Every file with its text, by name.
    fn files(&self) -> BTreeMap<String, String> {
        let files = std::fs::read_dir(self.path()).expect("readable").flatten().filter(|file| file.path().is_file());
        let named = files.map(|file| {
            (file.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(file.path()).expect("readable"))
        });
        named.collect()
    }
    fn ours(&self) -> Vec<String> {
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
        ["reset.acme.example", "reset.globex.example", "password.acme.example", "reset.mail.acme.example"]
            .map(host)
            .to_vec()
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

struct Scene {
    worker: Worker,
    clock: Arc<TestClock>,
    _stop: ShutdownHandle,
}

impl Scene {
    fn given(options: TraefikOptions) -> Self {
        let (stop, shutdown) = Shutdown::new();
        let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
        let backend = Traefik::new(options).expect("a backend");
        Self { worker: Worker::spawn(backend, clock.clone(), shutdown), clock, _stop: stop }
    }
    fn intent(name: &str) -> Intent {
        let portal = PortalKey { namespace: "mail".to_owned(), name: name.to_owned() };
        let installation = InstallationId::parse("0123456789abcdef").expect("an id");
        Intent {
            mark: Mark::new(&installation, &portal),
            portal,
            host: host(name),
            cname_target: None,
            proxied: true,
            ttl: 1,
            certificate: CertificateMode::None,
            adopt: false,
            keep: Vec::new(),
        }
    }
    async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
        self.worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await
    }
    async fn unwant(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
        self.worker.submit(intent.portal, Want::Absent { mark: intent.mark, hosts: vec![intent.host] }).await
    }
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
struct Real {
    watched: Watched,
    origin: RunningDouble,
    api: String,
    listen: u16,
    process: Running,
    peer: PathBuf,
}

impl Real {
    async fn start(peer: &Peer, throttle: Duration) -> Self {
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
    async fn until_visited(&self, host: &str, status: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (got, body) = self.visit(host).await;
            if got == status {
                return body;
            }
            assert!(Instant::now() < deadline, "{host}: {got} {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fn options(&self, layout: Layout) -> TraefikOptions {
        self.watched.options(layout, &self.origin.address.to_string(), Some(&self.api))
    }
}

#[tokio::test]
async fn a_visitor_reaches_the_page_through_real_traefik_until_it_is_deleted() {
    for peer in traefiks() {
        for layout in [Layout::PerHost, Layout::Merged] {
            let what = format!("{}, {layout:?}", peer.name);
            // given somebody's Traefik with a site of its own
            let real = Real::start(&peer, Duration::from_millis(100)).await;
            let before = real.watched.foreign();
            assert_eq!(real.visit("reset.acme.example").await.0, 404, "{what}");
            // when a portal is made, then Traefik confirms it and its page is reached, with nothing forged
            let scene = Scene::given(real.options(layout));
            scene.confirmed("reset.acme.example").await;
            let page = "portal reset.acme.example ";
            assert_eq!(real.visit("reset.acme.example").await, (200, page.to_owned()), "{what}");
            // when a person edits our file, then it is put right again
            let ours = real.watched.ours().remove(0);
            let text = real.watched.files()[&ours].clone();
            real.watched.write(&ours, &text.replace("reset.acme.example", "elsewhere.acme.example"));
            real.until_visited("reset.acme.example", 404).await;
            scene.clock.advance(SignedDuration::from_secs(61));
            scene.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
            real.until_visited("reset.acme.example", 200).await;
            assert_eq!(real.watched.files()[&ours], text, "{what}: as it was");
            // when a person removes it, then it is made again
            real.watched.remove(&ours);
            real.until_visited("reset.acme.example", 404).await;
            scene.clock.advance(SignedDuration::from_secs(61));
            scene.confirmed("reset.acme.example").await;
            assert_eq!(real.visit("reset.acme.example").await.0, 200, "{what}");
            // when the origin changes, then the same file leads there
            let other = RunningDouble::start(Arc::new(Pages)).await.expect("a loopback port");
            let options = real.watched.options(layout, &other.address.to_string(), Some(&real.api));
            let scene = Scene::given(options);
            scene.confirmed("reset.acme.example").await;
            real.until_visited("reset.acme.example", 200).await;
            assert!(!other.log.calls().is_empty(), "{what}: the new origin is asked");
            // when it is deleted, then it is not reached any more and the rest is as it was
            scene.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
            real.until_visited("reset.acme.example", 404).await;
            assert_eq!((real.watched.ours().len(), real.watched.foreign()), (0, before), "{what}");
        }
    }
}

#[tokio::test]
async fn a_broken_file_of_somebody_else_is_told_and_does_not_hold_the_writing() {
    for peer in traefiks() {
        let mut real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = Scene::given(real.options(Layout::PerHost));
        scene.confirmed("reset.acme.example").await;
        // given a broken file that appears, when another portal is made, then it is written and the file is named
        real.watched.write("zz.yml", "http:\n  routers: [\n");
        let doubt = scene.want("reset.globex.example").await.expect("written").doubts.remove(0);
        assert_eq!((doubt.truth, doubt.reason), (Truth::False, "ForeignFileBroken"), "{}", doubt.message);
        assert!(
            doubt.message.contains("the file zz.yml in ") && doubt.message.contains("not loaded"),
            "{}",
            doubt.message
        );
        // and the one that is loaded keeps its truth, with the warning
        scene.clock.advance(SignedDuration::from_secs(61));
        let doubt = scene.want("reset.acme.example").await.expect("there").doubts.remove(0);
        assert_eq!((doubt.truth, doubt.reason), (Truth::True, "ForeignFileBroken"), "{}", doubt.message);
        // when Traefik restarts with it, then nothing is loaded, and that is seen
        real.process.kill();
        let down = scene.want("reset.globex.example").await.expect("written").doubts.remove(0);
        assert_eq!(down.truth, Truth::Unknown, "{}", down.message);
        real.process = Real::run(&real.peer, real.watched.outer.path());
        real.wait_until_up().await;
        scene.until("reset.globex.example", |done| done.doubts.iter().any(|d| d.truth == Truth::False)).await;
        // when it is mended, then both are there
        real.watched.write("zz.yml", "# nothing yet\nhttp:\n");
        scene.confirmed("reset.globex.example").await;
        scene.clock.advance(SignedDuration::from_secs(61));
        scene.confirmed("reset.acme.example").await;
    }
}

#[tokio::test]
async fn somebody_elses_routers_are_seen_wherever_they_come_from() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = Scene::given(real.options(Layout::PerHost));
        // given a router of another provider at our host
        let theirs = json!({"http": {
            "routers": {"theirs": {"rule": "Host(`reset.acme.example`)", "service": "theirs", "entryPoints": ["web"]}},
            "services": {"theirs": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:9"}]}}},
        }});
        let answer = real.client().put("/api/providers/rest").json(&theirs).send().await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", peer.name);
        let deadline = Instant::now() + Duration::from_secs(20);
        while real.asks("/api/http/routers/theirs@rest").await != 200 {
            assert!(Instant::now() < deadline, "{}: not loaded", peer.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // then the host is taken, and nothing is written
        let taken = scene.want("reset.acme.example").await.expect_err("taken");
        assert_eq!((taken.class, taken.reason), (ErrorClass::Conflict, "ForeignRoute"), "{taken}");
        assert!(taken.message.contains("Traefik's router theirs@rest"), "{taken}");
        assert_eq!(real.watched.ours().len(), 0);
        // when it goes, then ours is made
        let none = json!({"http": {"routers": {}, "services": {}}});
        real.client().put("/api/providers/rest").json(&none).send().await.expect("an answer");
        while real.asks("/api/http/routers/theirs@rest").await == 200 {
            assert!(Instant::now() < deadline, "{}: not unloaded", peer.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        scene.confirmed("reset.acme.example").await;
        // given a file before ours that has a router of our name, then Traefik uses that one, and it is told
        let ours = real.watched.ours().remove(0);
        let name = ours.trim_end_matches(".yml");
        let thief = format!("http: {{routers: {{{name}: {{rule: 'Host(`www.thief.example`)', service: own}}}}}}");
        real.watched.write("0.yml", &thief);
        scene.clock.advance(SignedDuration::from_secs(61));
        let done = scene
            .until("reset.acme.example", |done| {
                scene.clock.advance(SignedDuration::from_secs(61));
                done.doubts.iter().any(|doubt| doubt.reason == "RouterTaken")
            })
            .await;
        assert!(done.doubts[0].message.contains("www.thief.example"), "{:?}", done.doubts);
    }
}

#[tokio::test]
async fn with_its_own_pace_and_old_rules_a_current_traefik_takes_our_file() {
    let Some(peer) = traefiks().pop() else { return };
    // given Traefik's default pace, and the grammar of version 2 as the default for rules
    let mut real = Real::start(&peer, Duration::from_secs(2)).await;
    real.process.kill();
    let file = real.watched.outer.path().join("traefik.yml");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("there")).expect("JSON");
    config["core"] = json!({"defaultRuleSyntax": "v2"});
    std::fs::write(&file, config.to_string()).expect("written");
    real.process = Real::run(&real.peer, real.watched.outer.path());
    real.wait_until_up().await;
    let scene = Scene::given(real.options(Layout::PerHost));
    scene.confirmed("reset.acme.example").await;
    assert_eq!(real.visit("reset.acme.example").await.0, 200);
    // when public addresses are https and certificates come from elsewhere, then Traefik takes that, too
    let mut options = real.options(Layout::PerHost);
    options.routing.https = true;
    Scene::given(options).confirmed("reset.acme.example").await;
    assert_eq!(real.visit("reset.acme.example").await.0, 404, "not without TLS");
}

#[tokio::test]
async fn an_entry_point_that_is_not_there_is_named() {
    let Some(peer) = traefiks().pop() else { return };
    let real = Real::start(&peer, Duration::from_millis(100)).await;
    let mut options = real.options(Layout::PerHost);
    options.routing.entry_points = vec![Word::parse("websecure").expect("a word")];
    let scene = Scene::given(options);
    let done = scene.until("reset.acme.example", |done| done.doubts.iter().any(|d| d.reason != "NotLoaded")).await;
    assert!(["RouterDisabled", "EntryPointMissing"].contains(&done.doubts[0].reason), "{:?}", done.doubts);
    assert!(
        done.doubts[0].message.contains("websecure") || done.doubts[0].message.contains("entryPoint"),
        "{:?}",
        done.doubts
    );
}

#[tokio::test]
async fn without_traefiks_api_nothing_is_claimed() {
    let watched = Watched::new();
    let scene = Scene::given(watched.options(Layout::PerHost, "127.0.0.1:5000", None));
    let doubt = scene.want("reset.acme.example").await.expect("written").doubts.remove(0);
    assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "NotConfirmed"));
    // an address that is no Traefik's is told as that
    let pages = RunningDouble::start(Arc::new(Pages)).await.expect("a loopback port");
    let options = watched.options(Layout::PerHost, "127.0.0.1:5000", Some(pages.url.as_str().trim_end_matches('/')));
    let doubt = Scene::given(options).want("reset.acme.example").await.expect("written").doubts.remove(0);
    assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "NotJson"), "{}", doubt.message);
}

#[tokio::test]
async fn a_thousand_portals_in_one_file_are_rewritten_only_when_one_changes() {
    let watched = Watched::new();
    let scene = Arc::new(Scene::given(watched.options(Layout::Merged, "127.0.0.1:5000", None)));
    let all = |scene: &Arc<Scene>| {
        let scene = Arc::clone(scene);
        futures_util::future::join_all((0..1000).map(move |index| {
            let scene = Arc::clone(&scene);
            async move { scene.want(&format!("reset.c{index}.example")).await }
        }))
    };
    for outcome in all(&scene).await {
        outcome.expect("made");
    }
    assert_eq!((watched.ours().len(), watched.owned().len()), (1, 1000));
    // when nothing changed, then nothing is written, by this process or by the next
    let before = watched.writes();
    scene.clock.advance(SignedDuration::from_secs(61));
    let next = Arc::new(Scene::given(watched.options(Layout::Merged, "127.0.0.1:5000", None)));
    for scene in [&scene, &next] {
        for outcome in all(scene).await {
            assert!(outcome.expect("there").changes.is_empty());
        }
    }
    assert_eq!(watched.writes(), before);
    // when one goes, then the others stay
    scene.unwant("reset.c7.example").await.expect("gone");
    assert_eq!(watched.owned().len(), 999);
}

#[tokio::test]
async fn the_layout_can_be_changed_without_a_gap() {
    let watched = Watched::new();
    for (layout, files) in [(Layout::PerHost, 2), (Layout::Merged, 1), (Layout::PerHost, 2)] {
        let scene = Scene::given(watched.options(layout, "127.0.0.1:5000", None));
        for name in ["reset.acme.example", "reset.globex.example"] {
            scene.want(name).await.expect("wanted");
        }
        assert_eq!((watched.ours().len(), watched.owned().len()), (files, 2), "{layout:?}");
    }
}

#[tokio::test]
async fn what_people_put_into_our_files_is_not_lost() {
    for layout in [Layout::PerHost, Layout::Merged] {
        let watched = Watched::new();
        let scene = Scene::given(watched.options(layout, "127.0.0.1:5000", None));
        scene.want("reset.acme.example").await.expect("made");
        let ours = watched.ours().remove(0);
        let text = watched.files()[&ours].clone();
        // given a router of theirs in our file, when the portal goes, then the file stays and they are told
        let mixed =
            text.replace("  routers:\n", "  routers:\n    mine: {rule: 'Host(`mine.example`)', service: own}\n");
        assert_ne!(mixed, text);
        watched.write(&ours, &mixed);
        let refused = scene.unwant("reset.acme.example").await.expect_err("not ours alone");
        assert!(refused.message.contains("router mine into our file"), "{refused}");
        assert_eq!(watched.files()[&ours], mixed, "{layout:?}");
        // given our name without our first line, then it is nobody's but theirs
        let unmarked = text.replacen("# portalkeeper/v1", "# portalkeeper", 1);
        watched.write(&ours, &unmarked);
        scene.clock.advance(SignedDuration::from_secs(61));
        let refused = scene.want("reset.acme.example").await.expect_err("taken");
        assert_eq!(refused.class, ErrorClass::Conflict, "{refused}");
        scene.unwant("reset.acme.example").await.expect("nothing of ours is there");
        assert_eq!(watched.files()[&ours], unmarked, "{layout:?}");
        // given a copy of our file under another name, then only the original is ours
        watched.write(&ours, &text);
        watched.write("copy.yml", &text);
        scene.unwant("reset.acme.example").await.expect("gone");
        assert_eq!(watched.ours(), Vec::<String>::new());
        assert_eq!(watched.files()["copy.yml"], text, "{layout:?}");
    }
}

#[tokio::test]
async fn our_damaged_file_is_made_anew_where_it_concerns_one_portal_only() {
    let watched = Watched::new();
    let scene = Scene::given(watched.options(Layout::PerHost, "127.0.0.1:5000", None));
    scene.want("reset.acme.example").await.expect("made");
    let ours = watched.ours().remove(0);
    let text = watched.files()[&ours].clone();
    watched.write(&ours, &text[..text.len() / 2]);
    watched.write(&ours, &format!("{}\n  broken: [", text.lines().next().expect("a line")));
    scene.clock.advance(SignedDuration::from_secs(61));
    scene.want("reset.acme.example").await.expect("made again");
    assert_eq!(watched.files()[&ours], text);
    // in the merged file others would be lost, so it is left to the operator
    let scene = Scene::given(watched.options(Layout::Merged, "127.0.0.1:5000", None));
    scene.want("reset.acme.example").await.expect("moved");
    assert_eq!(watched.ours().len(), 1);
    let merged = watched.ours().remove(0);
    let broken = format!("{}\n  broken: [", watched.files()[&merged].lines().next().expect("a line"));
    watched.write(&merged, &broken);
    scene.clock.advance(SignedDuration::from_secs(61));
    let refused = scene.want("reset.acme.example").await.expect_err("damaged");
    assert_eq!(refused.reason, "FileDamaged", "{refused}");
    watched.remove(&merged);
    scene.want("reset.acme.example").await.expect("made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_portal_is_reached_and_proved_through_real_traefik() {
    use crate::world::{World, raw};
    use kube::api::{Api, Patch, PatchParams};
    use portalkeeper::api::PortalClass;
    for peer in traefiks() {
        for api in [true, false] {
            // given a Traefik with a site of its own, and a class that names its folder
            let real = Real::start(&peer, Duration::from_millis(100)).await;
            let before = real.watched.files();
            let world = World::start().await;
            let classes: Api<PortalClass> = Api::all(world.client.clone());
            let through = json!({"spec": {
                "proxy": {"caddy": null, "traefik": {
                    "dynamicDir": real.watched.path(), "originUrl": format!("http://{}", world.pages),
                    "apiUrl": api.then_some(&real.api),
                }},
                "probe": {"address": format!("127.0.0.1:{}", real.listen)},
            }});
            classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
            // when a portal is declared, then it gets ready: by Traefik's word, or by its proof of life alone
            world.create("acme", json!({"domain": "acme.localhost", "branding": {"title": "Acme Mail"}})).await;
            world.until_ready("acme").await;
            let reason = if api { "Programmed" } else { "Proved" };
            world.until_condition("acme", "RouteProgrammed", "True", reason).await;
            let traefik: std::net::SocketAddr = ([127, 0, 0, 1], real.listen).into();
            let page = raw(traefik, "GET", "reset.acme.localhost", "/", &[], "").await;
            assert!(page.status == 200 && page.body.contains("Acme Mail"), "{}: {page:?}", peer.name);
            let portal = world.portals().get("acme").await.expect("there").status.expect("a status");
            assert_eq!(portal.backend.as_deref(), Some("traefik"));
            // when it is deleted, then the folder is as it was before
            world.delete("acme").await;
            assert_eq!(real.watched.files(), before, "{}", peer.name);
        }
    }
}
