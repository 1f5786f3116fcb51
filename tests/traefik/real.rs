//! Real Traefiks: what they serve, and what they say about it.
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use k8s_openapi::api::events::v1::Event;
use portalkeeper::api::condition::Truth;
use portalkeeper::backends::ErrorClass;
use portalkeeper::backends::traefik::{Layout, Word};
use portalkeeper::http::double::RunningDouble;
use serde_json::{Value, json};

use super::{Pages, Real, given};
use crate::peers::traefiks;

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
            let scene = given(real.options(layout));
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
            let scene = given(options);
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
        let scene = given(real.options(Layout::PerHost));
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
async fn what_is_called_broken_is_what_real_traefik_does_not_read() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = given(real.options(Layout::PerHost));
        let mut hosts = (0..).map(|number| format!("reset.c{number}.example"));
        // given files of somebody's, of every kind, that are in order
        let fine = [
            ("a.toml", "[bogus]\nx = 1\n[http.routers.x]\nrule = \"Host(`x.example`)\"\nservice = \"noop@internal\"\n"),
            ("b.yml", "{{ if eq 1 2 }}\nbogus: 1\n{{ else }}\nhttp:\n{{- end }}\n"),
            ("e.yml", "http:\n---\nhttp: [1\n"),
            ("d.yml", "bogus: 1\ntls: {certificates: []}\n"),
            ("c.yml", "# {{ env \"}}\" }}\nhttp:\n"),
            ("e.yml", "http: {routers: {e: {rule: 'Host(`e.example`)', priority: '10', tls: true, middlewares: x}}}\n"),
            ("f.yml", "http: {routers: {f: {Rule: 'Host(`f.example`)', priority: 1e3, observability: }}}\n"),
        ];
        fine.iter().for_each(|(name, text)| real.watched.write(name, text));
        scene.confirmed(&hosts.next().expect("a host")).await;
        for (name, text, why) in [
            ("zz.toml", "[http.routers.y]\nrule = \"Host(`y.example`)\n", "invalid basic string"),
            ("zz.toml", "[http.bogus]\nx = 1\n", "unknown field http.bogus"),
            ("zz.yml", "udp: {middlewares: {a: {b: 1}}}\n", "unknown field udp.middlewares"),
            ("zz.yml", "http: {routers: {x: }}\n", "http.routers.x is empty"),
            ("zz.yml", "tls: {}\n", "tls is empty"),
            (
                "zz.yml",
                "http: {routers: {x: {rule: 'Host(`x.example`)', priority: high}}}\n",
                "http.routers.x.priority is no whole number",
            ),
            ("zz.toml", "[http.routers.x]\npriority = 1.5\n", "http.routers.x.priority is no whole number"),
            ("zz.yml", "http: {routers: {x: {priority: ''}}}\n", "http.routers.x.priority is no whole number"),
            ("zz.yml", "http: {routers: {x: {service: {a: 1}}}}\n", "http.routers.x.service holds fields"),
            ("zz.yml", "{{ if true }}\nhttp:\n", "what begins in line 1 has no {{ end }}"),
            ("zz.yml", "http:\n{{ end }}\n", "the end in line 2 ends nothing"),
            ("zz.yml", "http:\n# {{ env \"HOME\" }\n", "the action that begins in line 2 is not ended by }}"),
        ] {
            // when one comes that is not, then what is made after it is not loaded, and the file is named with the reason
            real.watched.write(name, text);
            let host = hosts.next().expect("a host");
            let end = Instant::now() + Duration::from_millis(500);
            while Instant::now() < end {
                let doubt = scene.want(&host).await.expect("written").doubts.remove(0);
                assert_eq!(
                    (doubt.truth, doubt.reason),
                    (Truth::False, "ForeignFileBroken"),
                    "{text}: {}",
                    doubt.message
                );
                assert!(doubt.message.contains(name) && doubt.message.contains(why), "{text}: {}", doubt.message);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            real.watched.remove(name);
            scene.confirmed(&host).await;
        }
    }
}

#[tokio::test]
async fn somebody_elses_routers_are_seen_wherever_they_come_from() {
    for peer in traefiks() {
        let real = Real::start(&peer, Duration::from_millis(100)).await;
        let scene = given(real.options(Layout::PerHost));
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
    let scene = given(real.options(Layout::PerHost));
    scene.confirmed("reset.acme.example").await;
    assert_eq!(real.visit("reset.acme.example").await.0, 200);
    // when public addresses are https and certificates come from elsewhere, then Traefik takes that, too
    let mut options = real.options(Layout::PerHost);
    options.routing.https = true;
    given(options).confirmed("reset.acme.example").await;
    assert_eq!(real.visit("reset.acme.example").await.0, 404, "not without TLS");
}

#[tokio::test]
async fn an_entry_point_that_is_not_there_is_named() {
    let Some(peer) = traefiks().pop() else { return };
    let real = Real::start(&peer, Duration::from_millis(100)).await;
    let mut options = real.options(Layout::PerHost);
    options.routing.entry_points = vec![Word::parse("websecure").expect("a word")];
    let scene = given(options);
    let done = scene.until("reset.acme.example", |done| done.doubts.iter().any(|d| d.reason != "Loading")).await;
    assert!(["RouterDisabled", "EntryPointMissing"].contains(&done.doubts[0].reason), "{:?}", done.doubts);
    assert!(
        done.doubts[0].message.contains("websecure") || done.doubts[0].message.contains("entryPoint"),
        "{:?}",
        done.doubts
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_portal_is_reached_and_proved_through_real_traefik() {
    use crate::world::{World, raw};
    use kube::api::{Api, Patch, PatchParams};
    use portalkeeper::api::PortalClass;
    for peer in traefiks() {
        for api in [true, false] {
            // given a Traefik with a site of its own, and with its own pace where it can be asked, and a class that names
            // its folder
            let pace = if api { Duration::from_secs(2) } else { Duration::from_millis(100) };
            let real = Real::start(&peer, pace).await;
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
            // and nobody was warned of what only took its time
            if api {
                let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
                let events = events.list(&Default::default()).await.expect("a list").items;
                let warned = events.iter().filter(|event| event.type_.as_deref() == Some("Warning"));
                let warned: Vec<_> = warned.map(|event| (&event.reason, &event.note)).collect();
                assert!(warned.is_empty(), "{}: {warned:?}", peer.name);
            }
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
