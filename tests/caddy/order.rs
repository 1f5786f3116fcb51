//! Others who put routes beside and before ours in real Caddys.
use jiff::SignedDuration;
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::api::condition::Truth;
use portalkeeper::backends::ErrorClass;
use portalkeeper::plan::Intent;
use serde_json::{Value, json};

use super::real::Real;
use super::{Scene, foreign_route, host, is_ours, routes_of};
use crate::peers::caddies;
use crate::scene::intent;
use crate::world::World;

const HOST: &str = "reset.acme.example";

fn answering(sets: Value) -> Value {
    json!({"match": sets, "handle": [{"handler": "static_response", "body": "theirs"}], "terminal": true})
}

async fn put_first(real: &Real, route: Value) {
    let mut routes = routes_of(&real.config().await);
    routes.insert(0, route);
    real.set_routes(routes).await;
}

async fn ours(real: &Real) -> Vec<Value> {
    routes_of(&real.config().await).into_iter().filter(is_ours).collect()
}

fn portal() -> (u16, String) {
    (200, format!("portal {HOST} "))
}

#[tokio::test]
async fn a_host_that_somebody_adds_to_our_route_is_taken_out_and_the_page_stays() {
    for peer in caddies() {
        let what = peer.name;
        // given a portal whose route somebody extended: by a second host, by a second set, or to another host
        let real = Real::start(&peer.program).await;
        let scene = Scene::of(real.backend());
        scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let made = real.config().await;
        for sets in [
            json!([{"host": [HOST, "mail.acme.example"]}]),
            json!([{"host": [HOST]}, {"host": ["mail.acme.example"]}]),
            json!([{"host": ["mail.acme.example"]}]),
            json!([]),
        ] {
            let mut routes = routes_of(&real.config().await);
            let index = routes.iter().position(is_ours).expect("ours");
            routes[index]["match"] = sets.clone();
            real.set_routes(routes).await;
            // when it is looked at again, then it is put right by one update, and is there
            scene.clock.advance(SignedDuration::from_hours(2));
            let done = scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {sets}: {e}"));
            assert_eq!(done.changes.len(), 1, "{what}: {sets}: {:?}", done.changes);
            assert!(done.changes[0].starts_with(&format!("put {HOST} right")), "{what}: {sets}: {:?}", done.changes);
            assert_eq!(real.config().await, made, "{what}: {sets}");
            assert_eq!(real.visit(HOST).await, portal(), "{what}: {sets}");
        }
    }
}

#[tokio::test]
async fn a_route_that_serves_anything_else_too_is_not_taken_over() {
    for peer in caddies() {
        let what = peer.name;
        // given somebody's route for the host and for a path of all hosts
        let real = Real::start(&peer.program).await;
        let before = routes_of(&real.config().await);
        let adopting = Intent { adopt: true, ..intent(HOST) };
        for sets in [
            json!([{"host": [HOST]}, {"path": ["/status/*"]}]),
            json!([{"host": [HOST, "mail.acme.example"]}]),
            json!([{"host": [HOST]}, {"host": ["mail.acme.example"], "path": ["/x"]}]),
        ] {
            put_first(&real, answering(sets.clone())).await;
            let with_theirs = real.config().await;
            // when the portal may take it over, then it is refused with true words, and theirs is as it was
            let refused = Scene::of(real.backend()).submit(adopting.clone()).await.expect_err("it is somebody's");
            assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignRoute"), "{what}: {sets}");
            let words = format!("take {HOST} out of it by hand; it serves other names, too");
            assert!(refused.message.contains(&words), "{what}: {sets}: {refused}");
            assert_eq!(real.config().await, with_theirs, "{what}: {sets}");
            real.set_routes(before.clone()).await;
        }
        // but one whose sets all name this host alone is taken over
        put_first(&real, answering(json!([{"host": ["Reset.ACME.example"]}, {"host": [HOST], "path": ["/x"]}]))).await;
        Scene::of(real.backend()).submit(adopting).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(ours(&real).await.len(), 1, "{what}");
        assert_eq!(real.visit(HOST).await, portal(), "{what}");
    }
}

#[tokio::test]
async fn a_route_behind_one_that_takes_everything_comes_forward() {
    for peer in caddies() {
        let what = peer.name;
        let real = Real::start(&peer.program).await;
        let scene = Scene::of(real.backend());
        scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        for sets in [json!([]), json!([{"host": ["*.ACME.example"]}]), json!([{"path": ["/*"]}])] {
            // given that somebody put such a route before ours, and one for a path of all hosts
            let before = routes_of(&real.config().await);
            put_first(&real, answering(sets.clone())).await;
            put_first(&real, answering(json!([{"path": ["/metrics"]}]))).await;
            assert_eq!(real.visit(HOST).await.1, "theirs", "{what}: {sets}");
            // when it is looked at again, then ours stands before the one and behind the other, and theirs are as they were
            scene.clock.advance(SignedDuration::from_hours(2));
            let done = scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {sets}: {e}"));
            assert_eq!((done.changes.len(), done.doubts.len()), (1, 0), "{what}: {sets}: {done:?}");
            assert!(done.changes[0].contains("behind a route that takes its requests"), "{what}: {:?}", done.changes);
            assert_eq!(real.visit(HOST).await, portal(), "{what}: {sets}");
            assert_eq!(real.visit_at(real.listen, HOST, "/metrics").await.1, "theirs", "{what}: {sets}");
            let routes = routes_of(&real.config().await);
            assert_eq!(routes[0]["match"], json!([{"path": ["/metrics"]}]), "{what}");
            assert_eq!((is_ours(&routes[1]), &routes[2]["match"]), (true, &sets), "{what}: {sets}");
            real.set_routes(before).await;
        }
    }
}

#[tokio::test]
async fn a_route_of_somebody_for_the_very_host_before_ours_stays_and_is_told() {
    for peer in caddies() {
        let what = peer.name;
        // given a portal, and a route that its owner put before it
        let real = Real::start(&peer.program).await;
        let scene = Scene::of(real.backend());
        scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let before = routes_of(&real.config().await);
        put_first(&real, foreign_route(&host(HOST))).await;
        let shadowed = real.config().await;
        // when it is looked at again, then that is told and nothing is moved
        scene.clock.advance(SignedDuration::from_hours(2));
        let done = scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let told: Vec<_> = done.doubts.iter().map(|doubt| (doubt.truth, doubt.reason)).collect();
        assert_eq!((told, done.changes.len()), (vec![(Truth::False, "Shadowed")], 0), "{what}: {done:?}");
        let words = format!(
            "somebody's route for {HOST} stands before ours in the server mine of caddy/127.0.0.1:{} and gets its \
             requests: a route with the handler static_response; remove it, or put it behind ours",
            real.admin_port
        );
        assert_eq!(done.doubts[0].message, words, "{what}");
        assert_eq!(real.config().await, shadowed, "{what}");
        // when it is removed, then the next look is content, without waiting
        real.set_routes(before).await;
        let done = scene.want(HOST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((done.changes.len(), done.doubts.len()), (0, 0), "{what}: {done:?}");
        assert_eq!(real.visit(HOST).await, portal(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_the_proof_of_life_does_not_come_through_is_told_in_the_route_condition() {
    for peer in caddies() {
        let what = peer.name;
        // given somebody's route for a path of all hosts, in which that of the proof is
        let real = Real::start(&peer.program).await;
        put_first(&real, answering(json!([{"path": ["/.Well-Known/*"]}]))).await;
        let mut world = World::start().await;
        let classes: Api<PortalClass> = Api::all(world.client.clone());
        let through = json!({"spec": {
            "proxy": {"caddy": {"adminUrl": format!("http://127.0.0.1:{}", real.admin_port), "listen": null}},
            "probe": {"address": format!("127.0.0.1:{}", real.listen)},
        }});
        classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
        // when a portal is declared, then its route says so at once, and the portal is not live
        world.create("acme", json!({"domain": "acme.localhost"})).await;
        let words = world.until_condition("acme", "RouteProgrammed", "True", "ProofTaken").await;
        let taken = "takes the path /.Well-Known/*, and with it /.well-known/portalkeeper/live, at which the proof of life is \
                     asked for: leave that path out there";
        assert!(words.ends_with(taken), "{what}: {words}");
        world
            .until("acme", "not live", |portal| {
                let live = portal.and_then(|portal| crate::world::condition_of(portal, "Live"));
                live.is_some_and(|live| live.status == "False")
            })
            .await;
        // when the owner takes it away and puts one for the very host instead, then that is told after a restart
        let mut routes = routes_of(&real.config().await);
        routes[0] = foreign_route(&host("reset.acme.localhost"));
        real.set_routes(routes).await;
        world.stop_daemon().await;
        world.start_daemon().await;
        let words = world.until_condition("acme", "RouteProgrammed", "False", "Shadowed").await;
        assert!(words.contains("remove it, or put it behind ours"), "{what}: {words}");
        // and when that is gone, then the portal is ready without anybody's doing
        real.set_routes(ours(&real).await).await;
        world.until_ready("acme").await;
    }
}
