//! What is written into the folder, and what is left alone there.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use portalkeeper::api::condition::Truth;
use portalkeeper::backends::traefik::{Layout, Traefik};
use portalkeeper::backends::{Backend, BackendError, ErrorClass, Scope, Want};
use portalkeeper::http::double::RunningDouble;
use portalkeeper::plan::{Intent, Observed, Plan};

use super::{Pages, Watched, given, theirs};
use crate::scene::{Scene, host, intent};

#[tokio::test]
async fn without_traefiks_api_nothing_is_claimed() {
    let watched = Watched::new();
    let scene = given(watched.options(Layout::PerHost, "127.0.0.1:5000", None));
    let doubt = scene.want("reset.acme.example").await.expect("written").doubts.remove(0);
    assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "NotConfirmed"));
    // an address that is no Traefik's is told as that
    let pages = RunningDouble::start(Arc::new(Pages)).await.expect("a loopback port");
    let options = watched.options(Layout::PerHost, "127.0.0.1:5000", Some(pages.url.as_str().trim_end_matches('/')));
    let doubt = given(options).want("reset.acme.example").await.expect("written").doubts.remove(0);
    assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "NotJson"), "{}", doubt.message);
}

#[tokio::test]
async fn what_is_only_to_go_goes_whether_or_not_traefiks_api_answers() {
    let watched = Watched::new();
    let foreign = watched.foreign();
    let nobody = format!("http://127.0.0.1:{}", crate::peers::free_port());
    given(watched.options(Layout::PerHost, "127.0.0.1:5000", None)).want("reset.acme.example").await.expect("made");
    // given a portal that never had a file for its other name, and an API that is down
    let scene = given(watched.options(Layout::PerHost, "127.0.0.1:5000", Some(&nobody)));
    let intent = intent("reset.acme.example");
    let hosts = vec![intent.host.clone(), host("former.acme.example")];
    scene.worker.submit(intent.portal, Want::Absent { mark: intent.mark, hosts }).await.expect("removed");
    assert_eq!((watched.ours(), watched.foreign()), (Vec::<String>::new(), foreign));
    // but nothing is made at a name that somebody else may have
    let error = scene.want("reset.globex.example").await.expect_err("not known");
    assert_eq!((error.class, watched.ours().len()), (ErrorClass::Unavailable, 0), "{error}");
}

/// What would be lost or changed with a route is somebody's as well.
#[tokio::test]
async fn a_route_that_stands_together_with_other_things_is_not_offered_for_adoption() {
    let watched = Watched::new();
    let name = "reset.acme.example";
    let (other, mine) = (theirs("www.globex.example"), theirs(name).replace("taken", "mine"));
    let routers = |text: &str| text.split_once("  routers:\n").expect("routers").1.to_owned();
    watched.write("both.yml", &format!("{other}{}", routers(&mine)));
    let foreign = watched.foreign();
    let scene = given(watched.options(Layout::PerHost, "127.0.0.1:5000", None));
    for adopt in [false, true] {
        let refused = scene.submit(Intent { adopt, ..intent(name) }).await.expect_err("taken");
        assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignRoute"));
        assert_eq!(
            refused.message,
            format!(
                "{name} is taken by something that is not ours: the router mine in the file both.yml; take {name} out of it by \
                 hand; it serves other names, too, or stands together with other things, so it cannot be taken over"
            )
        );
    }
    assert_eq!((watched.ours(), watched.foreign()), (Vec::<String>::new(), foreign.clone()));
    // a file that holds nothing but the route may be taken over
    watched.write("both.yml", &theirs(name));
    let refused = scene.want(name).await.expect_err("taken");
    assert!(refused.message.contains("set the annotation portalkeeper.dev/adopt=true to take it over"), "{refused}");
    scene.submit(Intent { adopt: true, ..intent(name) }).await.expect("taken over");
    assert_eq!((watched.ours().len(), watched.files().contains_key("both.yml")), (1, false));
}

/// Counts the batches that are written: each writes every file that it touches once.
struct Counted(Traefik, Arc<AtomicUsize>);

#[async_trait]
impl Backend for Counted {
    type Item = <Traefik as Backend>::Item;
    fn instance(&self) -> String {
        self.0.instance()
    }
    fn desired(&self, intent: &Intent) -> Vec<Self::Item> {
        self.0.desired(intent)
    }
    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Self::Item>>, BackendError> {
        self.0.observe(scope).await
    }
    async fn apply(&self, plan: &Plan<Self::Item>) -> Vec<Result<Option<String>, BackendError>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.apply(plan).await
    }
    fn drift_interval(&self) -> Duration {
        self.0.drift_interval()
    }
    fn conflict_reason(&self) -> &'static str {
        self.0.conflict_reason()
    }
}

#[tokio::test]
async fn a_thousand_portals_in_one_file_are_one_write_and_rewritten_only_when_one_changes() {
    let watched = Watched::new();
    let applied = Arc::new(AtomicUsize::new(0));
    let scene = || {
        let traefik = Traefik::new(watched.options(Layout::Merged, "127.0.0.1:5000", None)).expect("a backend");
        Scene::of(Counted(traefik, Arc::clone(&applied)))
    };
    let all = async |scene: &Scene| {
        let names: Vec<String> = (0..1000).map(|index| format!("reset.c{index}.example")).collect();
        // All of them are due before the worker looks: nothing lets it run in between.
        let wants = futures_util::future::join_all(names.iter().map(|name| scene.want(name)));
        let outcomes = tokio::task::unconstrained(wants).await;
        outcomes.into_iter().map(|outcome| outcome.expect("there").changes.len()).sum::<usize>()
    };
    let first = scene();
    assert_eq!(all(&first).await, 1000);
    assert_eq!((watched.ours().len(), watched.owned().len()), (1, 1000));
    assert_eq!(applied.load(Ordering::SeqCst), 1);
    // when nothing changed, then nothing is written, by this process or by the next
    let before = watched.writes();
    first.clock.advance(SignedDuration::from_secs(61));
    for scene in [&first, &scene()] {
        assert_eq!(all(scene).await, 0);
    }
    assert_eq!((watched.writes(), applied.load(Ordering::SeqCst)), (before, 1));
    // when one goes, then the others stay
    first.unwant("reset.c7.example").await.expect("gone");
    assert_eq!((watched.owned().len(), applied.load(Ordering::SeqCst)), (999, 2));
}

#[tokio::test]
async fn the_layout_can_be_changed_without_a_gap() {
    let watched = Watched::new();
    for (layout, files) in [(Layout::PerHost, 2), (Layout::Merged, 1), (Layout::PerHost, 2)] {
        let scene = given(watched.options(layout, "127.0.0.1:5000", None));
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
        let scene = given(watched.options(layout, "127.0.0.1:5000", None));
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
    let scene = given(watched.options(Layout::PerHost, "127.0.0.1:5000", None));
    scene.want("reset.acme.example").await.expect("made");
    let ours = watched.ours().remove(0);
    let text = watched.files()[&ours].clone();
    watched.write(&ours, &text[..text.len() / 2]);
    watched.write(&ours, &format!("{}\n  broken: [", text.lines().next().expect("a line")));
    scene.clock.advance(SignedDuration::from_secs(61));
    scene.want("reset.acme.example").await.expect("made again");
    assert_eq!(watched.files()[&ours], text);
    // in the merged file others would be lost, so it is left to the operator
    let scene = given(watched.options(Layout::Merged, "127.0.0.1:5000", None));
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
