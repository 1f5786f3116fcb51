//! Disabled portals: their host is switched off in NPM and kept with its certificate until they come back.
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::double::{Authority, Visit};
use portalkeeper::backends::{BackendError, ErrorClass, Programmed, Want};
use portalkeeper::http::double::Fault;
use portalkeeper::plan::Intent;
use serde_json::json;

use super::{HOST, NEWEST, Scene, VERSIONS, lets_encrypt, page, settled};
use crate::scene::{host, intent, present};

const FORMER: &str = "password.acme.example";

impl Scene {
    /// The portal is disabled; it once was at another host, too.
    async fn rest(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = intent(name);
        let hosts = vec![host(FORMER), intent.host.clone()];
        self.worker.submit(intent.portal, Want::Dormant { mark: intent.mark, host: intent.host, hosts }).await
    }
    fn visits(&self) -> (Visit, Visit) {
        (settled(self, true), settled(self, false))
    }
}

fn nothing() -> (Visit, Visit) {
    (Visit::NoTls, Visit::DefaultPage)
}

fn served() -> (Visit, Visit) {
    (page(), Visit::Redirect)
}

#[tokio::test]
async fn a_disabled_portal_is_not_served_and_comes_back_with_the_certificate_it_had() {
    for version in VERSIONS {
        let mut scene = Scene::of(version, lets_encrypt()).await;
        scene.want(HOST).await.expect("made");
        assert_eq!(scene.visits(), served(), "{version}");
        scene.writes();
        // when it is disabled, then its host is switched off, and what stays is told
        let off = scene.rest(HOST).await.expect("switched off");
        assert_eq!(scene.writes(), ["POST proxy-hosts/2/disable 200"], "{version}");
        assert_eq!(scene.visits(), nothing(), "{version}");
        let kept: Vec<_> = off.resources.iter().map(|made| (made.name.as_str(), made.id.as_deref())).collect();
        assert_eq!(kept, [(HOST, Some("2"))], "{version}");
        assert!(off.changes[0].ends_with("Let's Encrypt certificate 1, disabled"), "{:?}", off.changes);
        // when that is asked again, by another process, then there is nothing to do
        scene.restart();
        let again = scene.rest(HOST).await.expect("switched off already");
        assert_eq!((scene.writes(), again.changes.len(), again.resources), (vec![], 0, off.resources), "{version}");
        // when it is enabled, then one write brings it back
        scene.want(HOST).await.expect("switched on");
        assert_eq!(scene.writes(), ["PUT proxy-hosts/2 200"], "{version}");
        assert_eq!((scene.visits(), scene.double.orders()), (served(), 1), "{version}");
        // when it is deleted while it is disabled, then host and certificate go
        scene.rest(HOST).await.expect("switched off");
        scene.restart();
        scene.writes();
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!(scene.writes(), ["DELETE proxy-hosts/2 200", "DELETE certificates/1 200"], "{version}");
    }
}

#[tokio::test]
async fn what_somebody_switches_in_npms_pages_is_switched_back() {
    // given a host that somebody disabled, when its portal is looked at, then it is enabled
    let scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    scene.double.disable(2);
    assert_eq!(scene.visits(), nothing());
    scene.writes();
    let done = scene.want(HOST).await.expect("switched on");
    assert!(done.repaired && done.changes[0].contains(", disabled to "), "{done:?}");
    assert_eq!((scene.writes(), scene.visits()), (vec!["PUT proxy-hosts/2 200".to_owned()], served()));
    // given a disabled portal whose host somebody enabled, when it is looked at, then it is disabled
    scene.rest(HOST).await.expect("switched off");
    scene.double.edit_in_pages(2, json!({"enabled": true}));
    assert_eq!(scene.visits(), served());
    scene.writes();
    scene.rest(HOST).await.expect("switched off again");
    assert_eq!((scene.writes(), scene.visits()), (vec!["POST proxy-hosts/2/disable 200".to_owned()], nothing()));
}

#[tokio::test]
async fn only_what_is_at_the_portals_own_host_is_kept() {
    // given a portal that had another host before, and neighbours of all kinds
    let scene = Scene::given(Source::None).await;
    present(&scene.worker, Intent { host: host(FORMER), ..intent(HOST) }).await.expect("made");
    present(&scene.worker, Intent { keep: vec![host(FORMER)], ..intent(HOST) }).await.expect("made");
    scene.want("reset.globex.example").await.expect("made");
    scene.double.add_host(&["shop.example"], json!({}));
    let before = scene.double.hosts().split_off(2);
    scene.writes();
    // when it is disabled, then the host at the former name is deleted
    scene.rest(HOST).await.expect("switched off");
    let mut writes = scene.writes();
    writes.sort();
    assert_eq!(writes, ["DELETE proxy-hosts/1 200", "POST proxy-hosts/2/disable 200"]);
    assert_eq!(scene.double.hosts().split_off(1), before);
    // given that somebody added a name to it, then it is left alone
    scene.double.edit_in_pages(2, json!({"domain_names": [HOST, "www.acme.example"], "enabled": true}));
    let refused = scene.rest(HOST).await.expect_err("shared");
    assert_eq!((refused.class, scene.writes()), (ErrorClass::Conflict, vec![]));
}

#[tokio::test]
async fn a_host_that_nginx_could_not_drop_is_told_and_then_believed() {
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.break_nginx(true);
    let told = scene.rest(HOST).await.expect_err("still served");
    assert_eq!(told.reason, "StillServed");
    assert!(
        told.message.starts_with(&format!("proxy host 1 for {HOST} is disabled, and may be served until")),
        "{told}"
    );
    scene.double.break_nginx(false);
    scene.rest(HOST).await.expect("switched off");
    // an answer that is lost is looked up
    scene.want(HOST).await.expect("switched on");
    scene.running.faults.push("POST", "/disable", 1, Fault::CutAfter);
    scene.rest(HOST).await.expect("done, as the look after it shows");
}

#[tokio::test]
async fn an_order_under_way_when_a_portal_is_disabled_is_used_when_it_comes_back() {
    let mut scene = Scene::of(NEWEST, lets_encrypt()).await;
    scene.double.set_authority(Authority::Ponders);
    scene.running.faults.push("POST", "/certificates", 1, Fault::CutAfter);
    scene.want(HOST).await.expect_err("under way");
    scene.restart();
    scene.writes();
    let kept = scene.rest(HOST).await.expect("nothing is served").resources;
    assert_eq!(kept.iter().map(|made| made.name.clone()).collect::<Vec<_>>(), [format!("certificate 1 for {HOST}")]);
    scene.double.finish_certificate(1);
    scene.rest(HOST).await.expect("nothing to do");
    assert_eq!(scene.writes(), [""; 0]);
    scene.want(HOST).await.expect("made");
    assert_eq!((scene.writes(), scene.double.orders()), (vec!["POST proxy-hosts 201".to_owned()], 1));
}
