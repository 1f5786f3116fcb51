//! Others who edit the same Caddy.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::backends::caddy::Caddy;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::{ErrorClass, Programmed};
use portalkeeper::http::Client;
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};

use super::real::Real;
use super::{Scene, foreign_of, foreign_route, host, options, owned_of, routes_of, users_config};
use crate::peers::caddies;
use crate::world::World;

#[tokio::test]
async fn somebody_elses_write_in_between_is_not_lost() {
    // given an answer to our first write that says somebody was faster
    let running = RunningDouble::start(Arc::new(CaddyDouble::new())).await.expect("a loopback port");
    let conflict = DoubleResponse::json(412, &json!({"error": "If-Match header did not match"}));
    running.faults.push("PATCH", "", 1, Fault::Answer(conflict));
    let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    // when a portal is wanted, then it is read and written once more
    scene.want("reset.acme.example").await.expect("made");
    assert_eq!(running.log.writes().iter().map(|call| call.status).collect::<Vec<_>>(), [412, 200]);
}

/// A Caddy whose owner adds a site right after a look at the routes.
struct Interloper {
    caddy: CaddyDouble,
    /// It strikes at the next look.
    armed: AtomicBool,
}

impl Interloper {
    fn new(caddy: CaddyDouble) -> Arc<Self> {
        caddy.load(users_config(2019, 80));
        Arc::new(Self { caddy, armed: AtomicBool::new(false) })
    }
    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
    fn struck(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
    fn has_site(&self) -> bool {
        foreign_of(&routes_of(&self.caddy.config())).contains("new.acme.example")
    }
}

impl Double for Interloper {
    fn name(&self) -> &'static str {
        "caddy"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let answer = self.caddy.handle(request);
        // Only a write looks at the list alone, right before.
        let before_a_write = request.method == "GET" && request.path.ends_with("/routes");
        if before_a_write && self.armed.swap(false, Ordering::SeqCst) {
            let mut config = self.caddy.config();
            if let Some(routes) = config.pointer_mut("/apps/http/servers/mine/routes").and_then(Value::as_array_mut) {
                routes.push(foreign_route(&host("new.acme.example")));
            }
            self.caddy.load(config);
        }
        answer
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

#[tokio::test]
async fn a_site_added_between_our_look_and_our_write_survives() {
    for caddy in [CaddyDouble::new(), CaddyDouble::new().of_debian()] {
        // given an owner who adds a site in exactly that moment
        let interloper = Interloper::new(caddy);
        let running = RunningDouble::start(interloper.clone()).await.expect("a loopback port");
        let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
        interloper.arm();
        // when a portal is made
        let done = scene.want("reset.acme.example").await.expect("made");
        // then the guard refused the first write, and both are there
        assert!(interloper.struck(), "the owner did strike");
        assert_eq!(running.log.writes().iter().map(|call| call.status).collect::<Vec<_>>(), [412, 200]);
        assert_eq!(owned_of(&routes_of(&interloper.caddy.config())).len(), 1);
        assert!(interloper.has_site());
        // and there is nothing to be told
        assert_eq!((done.remarks.len(), done.doubts.len()), (0, 0));
    }
}

#[tokio::test]
async fn what_a_write_without_a_guard_may_have_cost_others_is_told_at_a_removal_too() {
    // given a Caddy that shows no ETag, with a portal
    let interloper = Interloper::new(CaddyDouble::new().without_etag());
    let running = RunningDouble::start(interloper.clone()).await.expect("a loopback port");
    let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let made = scene.want("reset.acme.example").await.expect("made");
    let told = |done: &Programmed, reason: &str| {
        assert_eq!(done.remarks.iter().map(|remark| remark.reason).collect::<Vec<_>>(), [reason]);
        let start = format!("caddy/{}: the list of routes was replaced without a guard within ", running.address);
        let words = done.remarks[0].message.strip_prefix(&start).unwrap_or_else(|| panic!("{done:?}"));
        let (milliseconds, meaning) = words.split_once(" ms: ").expect("a time");
        assert!((1..30_000).contains(&milliseconds.parse::<u64>().expect("a number")), "{words}");
        assert!(meaning.contains("may be lost"), "{words}");
    };
    told(&made, "WrittenUnguarded");
    assert_eq!(made.doubts.iter().map(|doubt| doubt.reason).collect::<Vec<_>>(), ["WrittenUnguarded"]);
    // when the portal goes while the owner adds a site, then that site is gone, and the answer says that it may be
    interloper.arm();
    let gone = scene.unwant("reset.acme.example").await.expect("deleted");
    assert!(interloper.struck() && !interloper.has_site(), "nothing can prevent that");
    told(&gone, "RemovedUnguarded");
    // and it is told once
    scene.want("reset.globex.example").await.expect("made");
    assert_eq!(scene.unwant("reset.acme.example").await.expect("gone").remarks, []);
}

#[tokio::test]
async fn a_write_without_a_guard_that_fails_says_so_too() {
    // given a Caddy without ETag whose routes are read as changed after each of our writes
    let interloper = Interloper::new(CaddyDouble::new().without_etag());
    let running = RunningDouble::start(interloper.clone()).await.expect("a loopback port");
    let words = DoubleResponse::json(500, &json!({"error": "no room"}));
    running.faults.push("PATCH", "", 1, Fault::Answer(words));
    let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let error = scene.want("reset.acme.example").await.expect_err("refused");
    assert!(error.message.starts_with("caddy refused (500): no room; it was written without a guard"), "{error}");
}

/// Answers every write with 200, each time after another while, and keeps nothing.
struct Forgetful(CaddyDouble, std::sync::atomic::AtomicU64);

impl Double for Forgetful {
    fn name(&self) -> &'static str {
        "caddy"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        if request.method == "GET" {
            return self.0.handle(request);
        }
        let tries = self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(tries % 20));
        DoubleResponse::empty(200)
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

#[tokio::test]
async fn a_caddy_that_keeps_nothing_is_not_written_to_ever_on() {
    // given an admin endpoint without ETag that takes writes and keeps none, and a portal
    let forgetful = Arc::new(Forgetful(CaddyDouble::new().without_etag(), Default::default()));
    let running = RunningDouble::start(forgetful.clone()).await.expect("a loopback port");
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let through = json!({"spec": {
        "proxy": {"caddy": {"adminUrl": running.url.as_str(), "listen": null}}, "probe": {"enabled": false},
    }});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_condition("acme", "RouteProgrammed", "False", "TooManyWriters").await;
    let writes = || running.log.writes().len();
    let until = async |number: usize| {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while writes() < number {
            assert!(std::time::Instant::now() < deadline, "{} writes", writes());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(writes() + 12).await;
    // when it is tried again and again, then each time says the same, which wakes nobody: the waits grow as they should
    let version = async || world.portals().get("acme").await.expect("there").metadata.resource_version;
    let before = version().await;
    until(writes() + 16).await;
    assert_eq!(version().await, before);
    // and no batch writes faster than it must
    running.log.clear();
    let begun = std::time::Instant::now();
    until(16).await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    let portal = world.portals().get("acme").await.expect("there");
    let told = crate::world::condition_of(&portal, "RouteProgrammed").expect("told").message.clone();
    assert!(told.contains("it was written without a guard: "), "{told}");
}

#[tokio::test]
async fn a_deleted_portal_leaves_an_event_about_what_its_removal_may_have_cost() {
    // given a class over a Caddy that shows no ETag, and a portal in it
    let double = Arc::new(CaddyDouble::new().without_etag());
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let through = json!({"spec": {
        "proxy": {"caddy": {"adminUrl": running.url.as_str(), "listen": null}}, "probe": {"enabled": false},
    }});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_condition("acme", "RouteProgrammed", "True", "WrittenUnguarded").await;
    let written = running.log.writes().len();
    running.log.clear();
    // when it is deleted, then an event tells of that write, with its time
    world.delete("acme").await;
    assert_eq!(running.log.writes().len(), 1);
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let found = events.list(&Default::default()).await.expect("a list").items;
    let of = |reason: &str, times: usize| {
        let found = found.iter().filter(|event| event.reason.as_deref() == Some(reason));
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "{reason}: {found:?}");
        let counted = found[0].series.as_ref().map_or(1, |series| series.count);
        assert_eq!((found[0].type_.as_deref(), counted), (Some("Warning"), times as i32), "{reason}");
        found[0].note.clone().unwrap_or_default()
    };
    for (reason, times) in [("WrittenUnguarded", written), ("RemovedUnguarded", 1)] {
        let note = of(reason, times);
        assert!(note.contains("the list of routes was replaced without a guard within "), "{reason}: {note}");
    }
}

/// Somebody who adds a site of their own: as one call, or as a guarded read and write of the whole array.
async fn edit(admin: Client, number: usize, whole: bool) {
    const ROUTES: &str = "/config/apps/http/servers/mine/routes";
    let name = format!("site{number}.example");
    let mut mine = foreign_route(&host(&name));
    mine["@id"] = json!(format!("theirs-{number}"));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{name} cannot be added");
        let sent = if whole {
            let Ok(read) = admin.get(ROUTES).send().await else { continue };
            let etag = read.headers.get("etag").or_else(|| read.trailers.get("etag"));
            let (Ok(Value::Array(mut routes)), Some(etag)) = (read.json(), etag) else { continue };
            routes.push(mine.clone());
            let request = admin.patch(ROUTES).header("if-match", etag.to_str().expect("an ETag"));
            request.json(&Value::Array(routes)).send().await
        } else {
            admin.post(&format!("{ROUTES}/...")).json(&json!([mine])).send().await
        };
        match sent {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) if answer.status == 412 => {}
            // Each change restarts the admin endpoint, so an answer may get lost: a look tells.
            _ => {
                let there = admin.get(&format!("/id/theirs-{number}")).send().await;
                if there.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_people_who_edit_the_same_caddy_lose_nothing() {
    for peer in caddies() {
        let real = Real::start(&peer.program).await;
        let scene = Scene::of(real.backend());
        // given fifty people who each add a site, while portals come and go
        let editors: Vec<_> =
            (0..50).map(|number| tokio::spawn(edit(real.admin.clone(), number, number % 2 == 0))).collect();
        let mut told = 0;
        for number in 0..10 {
            let name = format!("reset.c{number}.example");
            let mut done = Vec::new();
            loop {
                match scene.want(&name).await {
                    Ok(made) => break done.push(made),
                    // So many writers that even eight tries met one, or the endpoint's restart at the last: the
                    // controller comes again.
                    Err(error) => {
                        let passing = matches!(error.class, ErrorClass::Unavailable | ErrorClass::OutcomeUnknown);
                        assert!(passing, "{}: {error}", peer.name);
                    }
                }
            }
            while number % 2 == 1 && done.len() < 2 {
                done.extend(scene.unwant(&name).await);
            }
            told += done.iter().map(|done| done.remarks.len() + done.doubts.len()).sum::<usize>();
        }
        for editor in editors {
            editor.await.expect("edited");
        }
        // then every portal is as wanted, what was there before is there, and so is every new site
        let routes = routes_of(&real.config().await);
        assert_eq!(owned_of(&routes).len(), 5, "{}: {routes:?}", peer.name);
        assert!(foreign_of(&routes).contains("my own site") && foreign_of(&routes).contains("catch-all"));
        let missing = (0..50).filter(|number| !foreign_of(&routes).contains(&format!("site{number}.example"))).count();
        assert_eq!((missing, told), (0, 0), "{}: nothing of theirs is lost, so there is nothing to tell", peer.name);
    }
}
