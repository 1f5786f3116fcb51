//! What visitors forge does not come through real proxies with our snippets, and the program believes only them.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portalkeeper::api::MailAddress;
use portalkeeper::backends::manual::{Edge, Purpose};
use portalkeeper::reset::live;
use portalkeeper::store::Recovery;
use portalkeeper::web::{Trust, WebOptions};
use serde_json::json;

use crate::front::{Front, HOST, ask_plain, at_host, echo, place, printed, programs, request, request_to};
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
async fn two_portals_and_the_main_app_share_one_configuration() {
    let origin = echo().await.to_string();
    for (peer, dialect) in programs() {
        for edge in [Edge::Direct, Edge::Cloudflare] {
            if peer.name == "caddy 2.6" && edge == Edge::Cloudflare {
                continue;
            }
            // given one portal's text, and what is to be added for another one and for the main app
            let first = place(edge, &origin);
            let places = [
                first.clone(),
                at_host(&first, "reset.globex.localhost", Purpose::Portal),
                at_host(&first, "mxtools.example.com", Purpose::MainApp),
            ];
            let hosts = places.clone().map(|place| place.host);
            let front = Front::start_with(&peer, dialect, &printed(dialect, &places), &hosts, "192.0.2.0/24").await;
            // when each is asked so often that chance cannot hide anything, then each request comes through, unforged
            for host in hosts.iter().cycle().take(12 * hosts.len()) {
                let forging = request_to(host.as_str(), "GET", "/", "CF-Connecting-IP: 6.6.6.6\r\n", "");
                let seen = front.ask_host(host.as_str(), "127.0.0.2", &forging).await;
                let head = &seen.body;
                assert_eq!(seen.status, 200, "{} {host}: {seen:?}", peer.name);
                assert_eq!(values(head, "host"), host.as_str(), "{}: {head}", peer.name);
                assert_eq!(values(head, "x-forwarded-for"), "127.0.0.2", "{}: {head}", peer.name);
                assert_eq!(values(head, "x-forwarded-proto"), "https", "{}: {head}", peer.name);
                assert!(!head.contains("6.6.6.6") && !head.contains("evil"), "{}: {head}", peer.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_by_name_is_found_when_its_name_leads_somewhere_at_last() {
    let origin = echo().await;
    for (peer, dialect) in programs().into_iter().filter(|(peer, _)| matches!(peer.name, "nginx" | "haproxy")) {
        // given an origin whose name nobody knows yet
        let names = NameServer::start().await;
        let place = place(Edge::Direct, &format!("pages.portals.test:{}", origin.port()));
        let own = printed(dialect, std::slice::from_ref(&place))
            .replace("resolver 127.0.0.11;", &format!("resolver {};", names.address))
            .replace("parse-resolv-conf", &format!("nameserver ours {}", names.address));
        let front = Front::start_with(&peer, dialect, &own, std::slice::from_ref(&place.host), "192.0.2.0/24").await;
        let status = async || front.ask("127.0.0.2", &request("GET", "/", "", "")).await.status;
        // then the proxy runs and cannot lead there
        assert!(matches!(status().await, 502 | 503), "{}", peer.name);
        // when the name is there, then it does, without a restart
        names.known.store(true, Ordering::SeqCst);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while status().await != 200 {
            assert!(std::time::Instant::now() < deadline, "{} does not find the origin", peer.name);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

/// Knows one name or none: each has the address 127.0.0.1, once it is known.
struct NameServer {
    address: std::net::SocketAddr,
    known: Arc<AtomicBool>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let (address, known) = (socket.local_addr().expect("an address"), Arc::new(AtomicBool::new(false)));
        let is_known = Arc::clone(&known);
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], is_known.load(Ordering::SeqCst));
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, known }
    }
}

/// The DNS answer to a query: its id and question, and an A record if it asks for one and the name is known.
fn answer(query: &[u8], known: bool) -> Vec<u8> {
    const A: u8 = 1;
    let name_ends = 12 + query[12..].iter().position(|byte| *byte == 0).expect("the end of a name");
    let question = &query[12..name_ends + 5];
    let found = known && question[question.len() - 3] == A;
    let code = if known { 0 } else { 3 };
    let mut answer = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, u8::from(found), 0, 0, 0, 0], question].concat();
    if found {
        // The question's name, type A, class IN, one second, four bytes.
        answer.extend([0xc0, 12, 0, A, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    answer
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
        // and the proof of life is what a page is: there for the one, a redirect of ours for the other
        let path = format!("{}?nonce={}", live::PATH, live::nonce());
        let proof = front.ask("127.0.0.2", &request("GET", &path, "", "")).await;
        assert_eq!(proof.status, 200, "{what}: {proof:?}");
        let direct = ask_plain(world.pages, "127.0.0.3", &request("GET", &path, more, "")).await;
        let to = format!("https://{HOST}{path}");
        assert_eq!((direct.status, direct.header("location")), (308, Some(to.as_str())), "{what}: {direct:?}");
        assert_eq!(direct.header(live::REDIRECT_HEADER), Some("https"), "{what}: {direct:?}");
    }
}
