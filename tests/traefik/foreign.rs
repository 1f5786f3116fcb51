//! Other people's files: what counts as taken, what may be taken over, and what stands in the way.
use std::time::{Duration, Instant};

use portalkeeper::api::condition::Truth;
use portalkeeper::backends::traefik::Layout;
use portalkeeper::backends::{BackendError, ErrorClass, Programmed, Want};
use portalkeeper::plan::Intent;

use super::{Real, Watched, given, theirs};
use crate::peers::traefiks;
use crate::scene::{Scene, intent};

const HOST: &str = "reset.acme.example";

async fn adopt(scene: &Scene) -> Result<Programmed, BackendError> {
    scene.submit(Intent { adopt: true, ..intent(HOST) }).await
}

async fn release(scene: &Scene) {
    let intent = intent(HOST);
    let want = Want::Released { mark: intent.mark, hosts: vec![intent.host] };
    scene.worker.submit(intent.portal, want).await.expect("left in place");
}

/// What somebody puts into the folder.
enum Put {
    Text(&'static str),
    Link(&'static str),
}

/// A file with one router of this rule, to a service that answers 418.
fn with_rule(rule: &str) -> String {
    format!("http: {{routers: {{shop: {{rule: '{rule}', service: noop@internal, entryPoints: [web]}}}}}}\n")
}

#[tokio::test]
async fn a_router_that_serves_more_than_the_host_is_not_taken_over() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = given(real.options(Layout::PerHost));
        for rule in [
            format!("Host(`{HOST}`) || PathPrefix(`/`)"),
            format!("(Host(`{HOST}`) || Host(`other.example`))"),
            format!("Host(`{HOST}`) && PathPrefix(`/`)"),
        ] {
            // given a file of somebody's with such a router, which visitors use
            real.watched.write("shop.yml", &with_rule(&rule));
            real.until_visited(HOST, 418).await;
            let before = real.watched.foreign();
            // when the portal may adopt, then it is told why it cannot, and nothing is touched
            let refused = adopt(&scene).await.expect_err("not for this host alone");
            assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignRoute"), "{rule}: {refused}");
            assert!(
                refused.message.contains("router shop in the file shop.yml")
                    && refused.message.contains("cannot be taken over"),
                "{refused}"
            );
            assert_eq!((real.watched.foreign(), real.watched.ours().len()), (before, 0), "{rule}");
            assert_eq!(real.visit(HOST).await.0, 418, "{rule}");
            real.watched.remove("shop.yml");
            real.until_visited(HOST, 404).await;
        }
        // given one that is for the host alone, then it is taken over
        real.watched.write("shop.yml", &with_rule(&format!("(Host(\"{HOST}\"))")));
        real.until_visited(HOST, 418).await;
        adopt(&scene).await.expect("taken over");
        real.until_visited(HOST, 200).await;
        assert!(!real.watched.files().contains_key("shop.yml"), "{}", peer.name);
    }
}

#[tokio::test]
async fn a_router_that_rules_the_host_out_does_not_stand_in_its_way() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        for (name, not) in [("a.yml", "!"), ("b.yml", "! "), ("c.yml", "!!!")] {
            real.watched
                .write(name, &with_rule(&format!("PathPrefix(`/`) && {not}Host(`{HOST}`)")).replace("shop", name));
        }
        real.until_visited("www.other.example", 418).await;
        // when a portal is made at the host, then it is reached, and the others' site is as it was
        given(real.options(Layout::PerHost)).confirmed(HOST).await;
        assert_eq!(real.visit(HOST).await.0, 200, "{}", peer.name);
        assert_eq!(real.visit("www.other.example").await.0, 418, "{}", peer.name);
    }
}

#[tokio::test]
async fn what_was_left_in_place_can_be_taken_over_again() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = given(real.options(Layout::PerHost));
        let before = real.watched.files();
        // given a portal that is gone and whose route was left in place
        scene.confirmed(HOST).await;
        release(&scene).await;
        let left: Vec<String> = real.watched.files().into_keys().filter(|name| name.starts_with("portal-")).collect();
        assert_eq!((left.len(), real.watched.ours().len()), (1, 0));
        assert!(!real.watched.files()[&left[0]].contains('#'), "nothing in it says that it is ours");
        // when it is declared again, then what was left is somebody's, and is taken over where that is allowed
        let taken = scene.want(HOST).await.expect_err("somebody's");
        assert_eq!(taken.class, ErrorClass::Conflict, "{taken}");
        adopt(&scene).await.expect("taken over");
        scene.confirmed(HOST).await;
        assert_eq!(real.visit(HOST).await.0, 200, "{}", peer.name);
        assert_eq!((real.watched.files().contains_key(&left[0]), real.watched.ours().len()), (false, 1));
        scene.unwant(HOST).await.expect("gone");
        assert_eq!(real.watched.files(), before, "{}", peer.name);
    }
}

#[tokio::test]
async fn a_file_whose_things_others_use_is_not_taken_over() {
    // given what was left in place, and a middleware of it that somebody uses since
    let watched = Watched::new();
    let scene = given(watched.options(Layout::PerHost, "127.0.0.1:5000", None));
    scene.want(HOST).await.expect("made");
    release(&scene).await;
    let name = watched.files().into_keys().find(|name| name.starts_with("portal-")).expect("left");
    let thing = name.trim_end_matches(".yml");
    for user in [
        format!("http: {{routers: {{u: {{rule: 'Host(`u.example`)', service: own, middlewares: ['{thing}@file']}}}}}}"),
        format!("http: {{services: {{u: {{weighted: {{services: [{{name: {thing}}}]}}}}}}}}"),
        format!("[http.middlewares.u.chain]\nmiddlewares = [\"{thing}\"]\n"),
        format!("# {{{{ env \"A\" }}}}\nhttp: {{routers: {{u: {{rule: 'Host(`u.example`)', service: {thing}}}}}}}"),
    ] {
        let using = if user.starts_with('[') { "user.toml" } else { "user.yml" };
        watched.write(using, &user);
        // when the portal may adopt, then the file stays, for the other's sake
        let refused = adopt(&scene).await.expect_err("used");
        assert!(refused.message.contains("cannot be taken over"), "{user}: {refused}");
        assert!(watched.files().contains_key(&name) && watched.ours().is_empty(), "{user}");
        watched.remove(using);
    }
    // and what only sounds alike does not count
    watched.write("user.yml", &theirs("u.example").replace("web", thing));
    adopt(&scene).await.expect("taken over");
    assert!(!watched.files().contains_key(&name));
}

#[tokio::test]
async fn where_nothing_is_known_to_be_broken_the_files_to_look_at_are_named() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = given(real.options(Layout::PerHost));
        let mut hosts = (0..).map(|number| format!("reset.c{number}.example"));
        real.watched.write("a.yml", "# {{ env \"A\" }}\nhttp:\n");
        scene.confirmed(&hosts.next().expect("a host")).await;
        // given something that real Traefik does not read and that this program cannot be sure of
        for (put, words) in [
            (
                Put::Text("http: {routers: {x: {rule: 'Host(`x.example`)', service: own, bogus: 1}}}\n"),
                "at zz.yml (http.routers.x.bogus is no field of a router up to Traefik 3.7), a.yml (a template) and own.yml",
            ),
            (Put::Link("root@host.12345:1"), "at zz.yml (a link to nothing), a.yml (a template) and own.yml"),
            (Put::Link(".."), "at zz.yml (a link to a folder), a.yml (a template) and own.yml"),
            (Put::Text("http: {middlewares: {m: {bogus: {}}}}\n"), "at a.yml (a template), own.yml and zz.yml"),
            (
                Put::Text("http: {services: {s: {loadBalancer: {bogus: 1}}}}\n"),
                "at a.yml (a template), own.yml and zz.yml",
            ),
            (Put::Text("http:\n# {{ nothingOfThisName }}\n"), "at a.yml (a template), zz.yml (a template) and own.yml"),
        ] {
            match put {
                Put::Text(text) => real.watched.write("zz.yml", text),
                Put::Link(to) => std::os::unix::fs::symlink(to, real.watched.path().join("zz.yml")).expect("linked"),
            }
            // when a portal is made, then it is not loaded as long as that is there, and is told where to look
            let host = hosts.next().expect("a host");
            let end = Instant::now() + Duration::from_millis(500);
            // but not before Traefik has had its time
            let doubt = scene.want(&host).await.expect("written").doubts.remove(0);
            assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "Loading"), "{words}: {}", doubt.message);
            assert!(doubt.message.contains("up to 10 seconds") && !doubt.message.contains(".yml"), "{}", doubt.message);
            real.watched.age();
            while Instant::now() < end {
                let doubt = scene.want(&host).await.expect("written").doubts.remove(0);
                assert_eq!((doubt.truth, doubt.reason), (Truth::False, "NotLoaded"), "{words}: {}", doubt.message);
                assert!(doubt.message.ends_with(words), "{words}: {}", doubt.message);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // and when it is gone, then all is loaded
            real.watched.remove("zz.yml");
            scene.confirmed(&host).await;
        }
    }
}
