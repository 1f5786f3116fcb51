//! A Caddy with several servers: routes follow the one that the class means, and nothing stays in another.
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::backends::ErrorClass;
use serde_json::{Value, json};

use super::real::Real;
use super::{Scene, is_ours, routes_of, users_config};
use crate::peers::{caddies, free_port};
use crate::world::{World, raw};

/// A second server beside the user's own, without routes.
fn with_another(listen: u16) -> impl FnOnce(&mut Value) {
    move |config| {
        config["apps"]["http"]["servers"]["another"] =
            json!({"listen": [format!("127.0.0.1:{listen}")], "automatic_https": {"disable": true}});
    }
}

fn ours_in(config: &Value, server: &str) -> usize {
    let routes = config["apps"]["http"]["servers"][server]["routes"].as_array();
    routes.into_iter().flatten().filter(|route| is_ours(route)).count()
}

#[tokio::test]
async fn a_route_follows_to_another_server_and_leaves_nothing_in_the_first() {
    for peer in caddies() {
        let what = peer.name;
        // given a Caddy with two servers, and a portal in the first
        let another = free_port();
        let real = Real::start_with(&peer.program, with_another(another)).await;
        let before = real.config().await;
        let first = Scene::of(real.backend());
        first.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        first.want("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        // when the class names the second one
        let second = Scene::of(real.backend_at(another));
        let done = second.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        // then the portal is served there, at no time by both, and the other portal stays where it is
        let dial = real.dial();
        let moved = format!("update reset.acme.example from route to {dial} in the server mine to route to {dial}");
        assert_eq!(done.changes, [moved], "{what}");
        let config = real.config().await;
        assert_eq!((ours_in(&config, "mine"), ours_in(&config, "another")), (1, 1), "{what}");
        assert_eq!(real.visit_at(another, "reset.acme.example", "/").await.0, 200, "{what}");
        assert_eq!(real.visit("reset.acme.example").await, (404, "catch-all".to_owned()), "{what}");
        assert_eq!(real.visit("reset.globex.example").await.0, 200, "{what}");
        // and when all are deleted by whoever is responsible now, then the configuration is as it was but for the empty list
        second.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        second.unwant("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut after = real.config().await;
        let servers = after["apps"]["http"]["servers"].as_object_mut().expect("servers");
        let left = servers["another"].as_object_mut().expect("a server").remove("routes");
        assert_eq!(left.unwrap_or(json!([])), json!([]), "{what}");
        assert_eq!(after, before, "{what}");
    }
}

#[tokio::test]
async fn without_a_fitting_server_nothing_is_made_and_everything_can_be_removed() {
    for peer in caddies() {
        let what = peer.name;
        // given a portal in a Caddy, and a class that names an address at which no server listens
        let real = Real::start(&peer.program).await;
        let before = real.config().await;
        Scene::of(real.backend()).want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let made = real.config().await;
        let wrong = Scene::of(real.backend_at(1));
        // when it is wanted there, then that is told and it stays where it is
        let refused = wrong.want("reset.acme.example").await.expect_err("no server");
        assert_eq!((refused.class, refused.reason), (ErrorClass::Permanent, "ServerNotFound"), "{what}");
        let fitting = format!("(there is mine on 127.0.0.1:{})", real.listen);
        assert!(refused.message.contains(&fitting), "{what}: {}", refused.message);
        assert_eq!(wrong.want("reset.globex.example").await.expect_err("no server").reason, "ServerNotFound", "{what}");
        assert_eq!(real.config().await, made, "{what}");
        // when it is deleted, then it goes
        wrong.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        wrong.unwant("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.config().await, before, "{what}");
    }
}

#[tokio::test]
async fn what_somebody_has_for_some_paths_of_the_host_stays_and_comes_first() {
    for peer in caddies() {
        let what = peer.name;
        // given a route of somebody's for one path of the host
        let real = Real::start(&peer.program).await;
        let paths = json!({
            "match": [{"host": ["reset.acme.example"], "path": ["/.well-known/*"]}],
            "handle": [{"handler": "static_response", "body": "theirs"}], "terminal": true,
        });
        let mut routes = routes_of(&real.config().await);
        routes.insert(0, paths);
        real.set_routes(routes).await;
        let before = real.config().await;
        let scene = Scene::of(real.backend());
        // when the portal is made, then both answer, each what it is for
        scene.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let visit = |path: &'static str| real.visit_at(real.listen, "reset.acme.example", path);
        assert_eq!(visit("/").await, (200, "portal reset.acme.example ".to_owned()), "{what}");
        assert_eq!(visit("/.well-known/acme").await, (200, "theirs".to_owned()), "{what}");
        // and when it is deleted, then theirs is as it was
        scene.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.config().await, before, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_names_another_server_takes_its_portals_there_and_a_deletion_leaves_nothing() {
    for peer in caddies() {
        let what = peer.name;
        // given a portal that is served by one server of a Caddy
        let another = free_port();
        let real = Real::start_with(&peer.program, with_another(another)).await;
        let world = World::start().await;
        let classes: Api<PortalClass> = Api::all(world.client.clone());
        let listening = async |port: u16| {
            let class = json!({"spec": {
                "proxy": {"caddy": {
                    "adminUrl": format!("http://127.0.0.1:{}", real.admin_port), "listen": format!("127.0.0.1:{port}"),
                }},
                "probe": {"address": format!("127.0.0.1:{port}")},
            }});
            classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&class)).await.expect("patched");
        };
        listening(real.listen).await;
        world.create("acme", json!({"domain": "acme.localhost"})).await;
        world.until_ready("acme").await;
        assert_eq!(ours_in(&real.config().await, "mine"), 1, "{what}");
        // when the class names the other one
        listening(another).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while ours_in(&real.config().await, "another") == 0 {
            assert!(Instant::now() < deadline, "{what}: the route does not follow");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.until_ready("acme").await;
        assert_eq!(ours_in(&real.config().await, "mine"), 0, "{what}");
        let there: std::net::SocketAddr = ([127, 0, 0, 1], another).into();
        assert_eq!(raw(there, "GET", "reset.acme.localhost", "/", &[], "").await.status, 200, "{what}");
        // when the portal is deleted, then no route of ours is left
        world.delete("acme").await;
        let config = real.config().await;
        assert_eq!((ours_in(&config, "mine"), ours_in(&config, "another")), (0, 0), "{what}");
        assert_eq!(routes_of(&config), routes_of(&users_config(real.admin_port, real.listen)), "{what}");
    }
}

#[tokio::test]
async fn a_server_may_have_any_name() {
    for peer in caddies() {
        for name in ["my server", "a/b", "süd", "50%"] {
            let what = format!("{} with {name:?}", peer.name);
            // given a server with a name that no path of a call can carry
            let real = Real::start_with(&peer.program, |config| {
                let servers = config["apps"]["http"]["servers"].as_object_mut().expect("servers");
                let mine = servers.remove("mine").expect("the user's");
                servers.insert(name.to_owned(), mine);
            })
            .await;
            let before = real.config().await;
            let scene = Scene::of(real.backend());
            // when a portal is made, then it is in that server, and when it goes, all is as it was
            scene.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(ours_in(&real.config().await, name), 1, "{what}");
            assert_eq!(real.visit("reset.acme.example").await.0, 200, "{what}");
            scene.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(real.config().await, before, "{what}");
        }
    }
}

#[tokio::test]
async fn a_server_that_was_made_for_portals_goes_with_the_last_of_them() {
    for peer in caddies() {
        let what = peer.name;
        // given a Caddy without any server, and two portals
        let port = free_port();
        let real = Real::start_with(&peer.program, |config| config["apps"] = json!({})).await;
        let scene = Scene::of(real.backend_at(port));
        let open = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        scene.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        scene.want("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.visit_at(port, "reset.acme.example", "/").await.0, 200, "{what}");
        // when one goes, then the server stays; with the last it goes, and the port is closed
        scene.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((ours_in(&real.config().await, "portalkeeper"), open().await), (1, true), "{what}");
        scene.unwant("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.config().await["apps"]["http"]["servers"], json!({}), "{what}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while open().await {
            assert!(Instant::now() < deadline, "{what}: the port stays open");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // and a later portal makes it anew; what somebody put into it keeps it there
        scene.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: again: {e}"));
        let path = "/config/apps/http/servers/portalkeeper/read_timeout";
        let answer = real.admin.put(path).json(&json!(30_000_000_000_u64)).send().await.expect("an answer");
        assert_eq!(answer.status, 200, "{what}");
        scene.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.config().await["apps"]["http"]["servers"]["portalkeeper"]["routes"], json!([]), "{what}");
    }
}

#[tokio::test]
async fn where_all_servers_are_ours_each_address_gets_its_own_and_routes_follow() {
    for peer in caddies() {
        let what = peer.name;
        // given a Caddy without any server of somebody's, and two portals in the one that was made for them
        let (first, second) = (free_port(), free_port());
        let real = Real::start_with(&peer.program, |config| config["apps"] = json!({})).await;
        let (here, there) = (Scene::of(real.backend_at(first)), Scene::of(real.backend_at(second)));
        here.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        here.want("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        // when one of them is wanted at another address, then it is served there alone, and the other one stays
        there.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let ours = async |server: &'static str| ours_in(&real.config().await, server);
        assert_eq!((ours("portalkeeper").await, ours("portalkeeper-2").await), (1, 1), "{what}");
        assert_eq!(real.visit_at(second, "reset.acme.example", "/").await.0, 200, "{what}");
        assert_eq!(real.visit_at(first, "reset.globex.example", "/").await.0, 200, "{what}");
        assert_ne!(real.visit_at(first, "reset.acme.example", "/").await.1, "portal reset.acme.example ", "{what}");
        // when the other one follows, then the first server goes
        there.want("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let config = real.config().await;
        let servers: Vec<&String> = config["apps"]["http"]["servers"].as_object().expect("servers").keys().collect();
        assert_eq!(servers, ["portalkeeper-2"], "{what}");
        assert_eq!(real.visit_at(second, "reset.globex.example", "/").await.0, 200, "{what}");
        // and nothing is left when both are gone, whoever removes them
        here.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        there.unwant("reset.globex.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.config().await["apps"]["http"]["servers"], json!({}), "{what}");
    }
}
