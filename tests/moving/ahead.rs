//! What is told of a move before it is made: by `plan`, and in the status while it is under way or held.
use std::sync::atomic::Ordering;
use std::time::Duration;

use portalkeeper::api::ANNOTATION_PAUSED;
use serde_json::json;

use super::{HOST, Scene, target};

impl Scene {
    /// The only portal's changes, and what is in the way of them.
    async fn planned(&self) -> (Vec<String>, Vec<String>) {
        let mut plans = self.world.plan().await;
        assert_eq!(plans.len(), 1);
        let plan = plans.remove(0);
        (plan.changes, plan.problems)
    }
    async fn pending(&self) -> Vec<String> {
        self.world.portals().get("acme").await.unwrap().status.unwrap().pending
    }
    async fn until_pending(&self, lines: &[String]) {
        let told = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| status.pending == lines)
        };
        self.world.until("acme", &format!("with {lines:?} pending"), told).await;
    }
    /// The steps from `a` to `b`: route, record, removal.
    fn steps(&self) -> [String; 3] {
        let [a, b] = [&self.a_url, &self.b_url].map(|url| format!("caddy/{}", url.trim_start_matches("http://")));
        let [a, b] = [a, b].map(|system| system.trim_end_matches('/').to_owned());
        let (from, to, pages) = (target("a"), target("b"), self.world.pages);
        [
            format!("{b}: create {HOST} (route to {pages})"),
            format!(
                "when the new route answers at {to}, cloudflare: update {HOST} from CNAME record to {from}, proxied to \
                 CNAME record to {to}, proxied"
            ),
            format!("when {HOST} is proved, {a}: delete {HOST}"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_the_steps_of_a_move_in_order_and_takes_none() {
    let mut scene = Scene::given().await;
    assert_eq!(scene.planned().await, (vec![], vec![]));
    // given a portal that is to move, and a program that is stopped
    scene.world.stop_daemon().await;
    scene.move_to("b").await;
    let steps = scene.steps();
    assert_eq!(scene.planned().await, (steps.to_vec(), vec![]));
    // the same for a class that is to have another proxy
    scene.move_to("a").await;
    scene.change_class(scene.second()).await;
    assert_eq!(scene.planned().await, (steps.to_vec(), vec![]));
    assert_eq!((scene.told(), scene.records_written()), (Vec::<String>::new(), 0), "planning writes nothing");
    // when it is done, then nothing is left to do
    scene.world.start_daemon().await;
    scene.until_moved().await;
    assert_eq!(scene.planned().await, (vec![], vec![]));
    assert_eq!(scene.pending().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_or_observed_portal_has_the_steps_of_its_move_in_its_status() {
    let scene = Scene::given().await;
    scene.world.annotate("acme", ANNOTATION_PAUSED, Some("true")).await;
    scene.move_to("b").await;
    scene.until_pending(&scene.steps()).await;
    assert_eq!(scene.planned().await, (scene.steps().to_vec(), vec![]));
    scene.world.patch("acme", json!({"spec": {"managementPolicy": "ObserveOnly"}})).await;
    scene.world.annotate("acme", ANNOTATION_PAUSED, None).await;
    scene.world.until_condition("acme", "RouteProgrammed", "False", "ChangePending").await;
    assert_eq!(scene.pending().await, scene.steps());
    assert_eq!((scene.told(), scene.records_written()), (Vec::<String>::new(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_on_its_way_tells_what_is_still_to_come() {
    // before the record is changed
    let mut scene = Scene::held_before_the_flip().await;
    let [_, record, removal] = scene.steps();
    let record = record.replace(", proxied", "");
    scene.until_pending(&[record, removal.clone()]).await;
    // after it was changed, while the new route is not proved
    scene.cut.store(true, Ordering::SeqCst);
    scene.hidden.store(false, Ordering::SeqCst);
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    scene.until_stage("Flipped").await;
    scene.until_pending(&[removal]).await;
    assert_eq!(scene.leads_to(), "b");
    // and nothing when it has arrived
    scene.cut.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    scene.until_pending(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_is_planned_as_made_before_the_former_one_goes() {
    let mut scene = Scene::given().await;
    scene.world.stop_daemon().await;
    scene.world.patch("acme", json!({"spec": {"subdomain": "password"}})).await;
    let new = "password.acme.localhost";
    let (changes, problems) = scene.planned().await;
    let words: Vec<&str> = changes.iter().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    let a = scene.steps()[2].split("proved, ").nth(1).unwrap().to_owned();
    let system = a.split(": ").next().unwrap();
    assert_eq!(
        words,
        [
            format!("cloudflare: create {new}"),
            format!("{system}: create {new}"),
            format!("when {new} is proved, cloudflare: delete {HOST}"),
            format!("when {new} is proved, {a}"),
        ]
    );
    assert_eq!((problems, scene.told()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_cannot_be_removed_any_more() {
    let mut scene = Scene::given().await;
    scene.world.stop_daemon().await;
    scene.move_to("b").await;
    let classes: kube::Api<portalkeeper::api::PortalClass> = kube::Api::all(scene.world.client.clone());
    classes.delete("a", &Default::default()).await.unwrap();
    let (changes, problems) = scene.planned().await;
    assert_eq!(changes.len(), 2, "route and record: {changes:?}");
    assert_eq!(problems, ["ClassNotFound: PortalClass \"a\" does not exist"]);
}
