//! What visitors forge does not come through real proxies with our snippets, and the program believes only them.
use portalkeeper::api::MailAddress;
use portalkeeper::backends::manual::Edge;
use portalkeeper::store::Recovery;
use portalkeeper::web::{Trust, WebOptions};
use serde_json::json;

use crate::front::{Front, HOST, ask_plain, echo, place, programs, request};
use crate::world::World;

/// Values of a header in a request's head, joined as one list.
fn values(head: &str, name: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    found.collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_do_not_come_through_our_snippets() {
    let origin = echo().await.to_string();
    for (peer, dialect) in programs() {
        let front = Front::start(&peer, dialect, &place(Edge::Direct, &origin), "192.0.2.0/24").await;
        // given a visitor who forges all there is
        let more = "CF-Connecting-IP: 6.6.6.6\r\n";
        let seen = front.ask("127.0.0.2", &request("GET", "/", more, "")).await;
        // then the origin sees the true address, host and scheme, once each, and nothing forged
        let head = &seen.body;
        assert_eq!(seen.status, 200, "{}: {seen:?}", peer.name);
        assert_eq!(values(head, "x-forwarded-for"), "127.0.0.2", "{}: {head}", peer.name);
        assert_eq!(values(head, "x-forwarded-proto"), "https", "{}: {head}", peer.name);
        assert_eq!(values(head, "host"), HOST, "{}: {head}", peer.name);
        assert!(!head.contains("6.6.6.6") && !head.contains("evil"), "{}: {head}", peer.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_cloudflare_the_visitor_is_known_and_the_edge_cannot_be_played() {
    let origin = echo().await.to_string();
    // Caddy 2.6 cannot name the header with the visitor's address.
    for (peer, dialect) in programs().into_iter().filter(|(peer, _)| peer.name != "caddy 2.6") {
        // given 127.0.0.2 as Cloudflare's edge
        let front = Front::start(&peer, dialect, &place(Edge::Cloudflare, &origin), "127.0.0.2/32").await;
        let of_edge = request("GET", "/", "CF-Connecting-IP: 203.0.113.7\r\n", "");
        let head = front.ask("127.0.0.2", &of_edge).await.body;
        assert_eq!(values(&head, "x-forwarded-for"), "203.0.113.7", "{}: {head}", peer.name);
        assert_eq!(values(&head, "x-forwarded-proto"), "https", "{}: {head}", peer.name);
        assert!(!head.contains("evil"), "{}: {head}", peer.name);
        // when somebody else says the same, then only his own address counts
        let head = front.ask("127.0.0.3", &of_edge).await.body;
        assert_eq!(values(&head, "x-forwarded-for"), "127.0.0.3", "{}: {head}", peer.name);
        assert!(!head.contains("203.0.113.7"), "{}: {head}", peer.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_behind_real_proxies_knows_who_asks_and_insists_on_https() {
    for (peer, dialect) in programs() {
        let what = peer.name;
        // given the program with FORCE_HTTPS, one trusted proxy at 127.0.0.1, and a portal at a public https address
        let trust =
            Trust { count: 1, networks: portalkeeper::config::networks::parse("127.0.0.1").expect("a network") };
        let world = World::start_reached_by(WebOptions { force_https: true, trust }).await;
        let classes: kube::api::Api<portalkeeper::api::PortalClass> = kube::api::Api::all(world.client.clone());
        let public = json!({"spec": {"publicScheme": "https", "publicPort": null, "probe": {"enabled": false}}});
        classes.patch("sandbox", &Default::default(), &kube::api::Patch::Merge(&public)).await.expect("patched");
        let address = |text: &str| MailAddress::parse(text).expect("an address");
        let entry = Recovery { mailbox: address("ann@acme.localhost"), address: address("ann@home.example") };
        world.store().recovery_set(&[entry], jiff::Timestamp::now()).await.expect("set");
        world.create("acme", json!({"domain": "acme.localhost"})).await;
        world.until_condition("acme", "Live", "Unknown", "ProbeDisabled").await;
        let front = Front::start(&peer, dialect, &place(Edge::Direct, &world.pages.to_string()), "192.0.2.0/24").await;
        // when a visitor comes through the proxy, then there is the page, with HSTS and no cookie
        let page = front.ask("127.0.0.2", &request("GET", "/", "", "")).await;
        assert_eq!(page.status, 200, "{what}: {page:?}");
        assert!(
            page.header("strict-transport-security").is_some_and(|hsts| hsts.starts_with("max-age=31536000")),
            "{what}"
        );
        assert_eq!(page.header("set-cookie"), None, "{what}");
        assert!(!page.body.contains("evil"), "{what}");
        // when he asks for a link, then his own address is on record, and the mail names the portal's own host
        let token =
            page.body.split("name=\"form\" value=\"").nth(1).expect("a form").split('"').next().expect("a token");
        let form = [("form", token), ("mailbox", "ann@acme.localhost")];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        let sent = front.ask("127.0.0.2", &request("POST", "/request", kind, &body)).await;
        assert_eq!((sent.status, sent.header("location")), (303, Some("/sent")), "{what}: {sent:?}");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let asked = loop {
            let events = world.store().audit_newest(10).await.expect("events");
            if let Some(asked) = events.into_iter().find(|event| event.action == "request") {
                break asked;
            }
            assert!(std::time::Instant::now() < deadline, "{what}: nothing on record");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert_eq!(asked.client, "127.0.0.2", "{what}: {asked:?}");
        let mail = format!("{:?}", world.simulators.sink.messages());
        assert!(mail.contains(&format!("https://{HOST}/r#")) && !mail.contains("evil"), "{what}: {mail}");
        // when somebody passes the proxy by, then his word for https and for his address is not taken
        let more = "X-Forwarded-Proto: https\r\n";
        let direct = ask_plain(world.pages, "127.0.0.3", &request("GET", "/r?x=1", more, "")).await;
        let to = format!("https://{HOST}/r?x=1");
        assert_eq!((direct.status, direct.header("location")), (308, Some(to.as_str())), "{what}: {direct:?}");
    }
}
