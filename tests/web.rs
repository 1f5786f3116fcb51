//! What the page server does with hosts, methods and headers, before any portal is asked.
use serde_json::json;

use crate::world::{ADMIN_HOST, World, bytes, raw};

const HOST: &str = "reset.acme.localhost";

async fn world() -> World {
    let world = World::start().await;
    world
        .create("acme", json!({"domain": "acme.localhost", "branding": {"title": "Acme <Mail>", "theme": "Dark"}}))
        .await;
    world.until_ready("acme").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_shows_itself_and_an_unknown_host_gets_421_without_branding() {
    let world = world().await;
    let page = raw(world.pages, "GET", HOST, "/", &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("Acme &lt;Mail&gt;") && !page.body.contains("Acme <Mail>"));
    let style = raw(world.pages, "GET", HOST, "/style.css", &[], "").await;
    assert!(style.body.contains("color-scheme:dark;"), "{}", style.body);
    for host in ["unknown.localhost", "127.0.0.1", "localhost:5000", "reset.acme.localhost.evil.example"] {
        let answer = raw(world.pages, "GET", host, "/", &[], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (421, "This host is not served here.\n"), "{host}");
    }
    // the same portal under other spellings of its host
    for host in ["RESET.acme.localhost", "reset.acme.localhost.", "reset.acme.localhost:81"] {
        assert_eq!(raw(world.pages, "GET", host, "/", &[], "").await.status, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_has_nothing_of_the_admin_side_nor_of_the_health_port() {
    let world = world().await;
    for path in [
        "/admin", "/login", "/metrics", "/healthz", "/readyz", "/api", "/apis", "//", "/%2e%2e/", "/r/", "/sent/x",
        "/.env",
    ] {
        let answer = raw(world.pages, "GET", HOST, path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("There is no such page"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_protective_headers() {
    let world = world().await;
    for (host, path) in [(HOST, "/"), (HOST, "/style.css"), (HOST, "/none"), ("unknown.localhost", "/")] {
        let answer = raw(world.pages, "GET", host, path, &[], "").await;
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
        assert_eq!(answer.header("set-cookie"), None);
        let cached = path == "/style.css";
        assert_eq!(answer.header("cache-control") == Some("no-store"), !cached, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_are_refused_and_the_server_goes_on() {
    let world = world().await;
    for method in ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        let answer = raw(world.pages, method, HOST, "/", &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")), "{method}");
    }
    let head = raw(world.pages, "HEAD", HOST, "/", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    // authority-form CONNECT makes the framework panic if it gets there
    let connect = bytes(
        world.pages,
        b"CONNECT reset.acme.localhost:443 HTTP/1.1\r\nHost: reset.acme.localhost:443\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!([400, 405].contains(&connect.status), "{connect:?}");
    let two = bytes(
        world.pages,
        b"GET / HTTP/1.1\r\nHost: reset.acme.localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(two.status, 400);
    let none = bytes(world.pages, b"GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(none.status, 400);
    let elsewhere = bytes(
        world.pages,
        b"GET http://evil.example/ HTTP/1.1\r\nHost: reset.acme.localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!([400, 421].contains(&elsewhere.status), "{elsewhere:?}");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let large = raw(world.pages, "POST", HOST, "/request", &form, &"x".repeat(5000)).await;
    assert_eq!(large.status, 413);
    let chunked = bytes(
        world.pages,
        b"POST /request HTTP/1.1\r\nHost: reset.acme.localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\na=1\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(chunked.status, 400, "a chunked form is read, and refused only because it is not ours");
    assert_eq!(world.get(HOST, "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn proof_of_life_signs_only_nonces() {
    let world = world().await;
    let path = |nonce: &str| format!("/.well-known/portalkeeper/live?nonce={nonce}");
    let good = raw(world.pages, "GET", HOST, &path("00112233445566778899aabbccddeeff"), &[], "").await;
    assert_eq!(good.status, 200);
    assert_eq!(good.body.matches("\"proof\":\"").count(), 1);
    for bad in ["", "short", "00112233445566778899aabbccddeefg", &"0".repeat(65)] {
        assert_eq!(raw(world.pages, "GET", HOST, &path(bad), &[], "").await.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logo_comes_from_a_config_map_and_a_bad_one_is_told_in_an_event() {
    let world = world().await;
    for object in portalkeeper::app::sandbox::examples().unwrap() {
        if object["kind"] == "ConfigMap" {
            world.put(&object).await;
        }
    }
    let logo = json!({"configMapName": "acme-brand", "key": "logo.png"});
    world.patch("acme", json!({"spec": {"branding": {"logo": logo}}})).await;
    let mut answer = raw(world.pages, "GET", HOST, "/logo", &[], "").await;
    for _ in 0..500 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        answer = raw(world.pages, "GET", HOST, "/logo", &[], "").await;
    }
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
    world.patch("acme", json!({"spec": {"branding": {"logo": {"configMapName": "acme-brand", "key": "none"}}}})).await;
    let events: kube::Api<k8s_openapi::api::events::v1::Event> = kube::Api::namespaced(world.client.clone(), "default");
    for _ in 0..500 {
        let list = events.list(&Default::default()).await.unwrap();
        if let Some(event) = list.items.iter().find(|event| event.reason.as_deref() == Some("LogoUnusable")) {
            let note = event.note.as_deref().unwrap();
            assert_eq!(
                note,
                "spec.branding.logo: ConfigMap \"acme-brand\" has no key \"none\"; the page is served without a logo"
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no event");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_port_gives_a_served_portals_snippets() {
    let world = world().await;
    let get = async |path: &str| raw(world.health, "GET", "127.0.0.1", path, &[], "").await;
    let caddy = get(&format!("/snippets/{HOST}?proxy=caddy")).await;
    assert_eq!(caddy.status, 200);
    assert!(caddy.body.contains(&format!("reverse_proxy {}", world.pages)), "{}", caddy.body);
    assert!(caddy.body.contains(&format!("{HOST}  CNAME  {}", portalkeeper::sandbox::CNAME_TARGET)), "{}", caddy.body);
    assert!(!caddy.body.contains("HAProxy"));
    let all = get(&format!("/snippets/{HOST}")).await.body;
    assert!(all.contains("HAProxy") && all.contains("Pangolin"), "{all}");
    let unknown = get(&format!("/snippets/{HOST}?proxy=iis")).await;
    assert!(unknown.status == 400 && unknown.body.contains("is not a known proxy"), "{}", unknown.body);
    assert_eq!(get("/snippets/reset.other.example").await.status, 404);
    // what stands before the proxy can be said, too, and what is not known is refused
    assert!(caddy.body.contains("(proxied)") && caddy.body.contains("trusted_proxies"), "{}", caddy.body);
    let direct = get(&format!("/snippets/{HOST}?edge=direct&proxy=caddy")).await.body;
    assert!(direct.contains("(not proxied)") && !direct.contains("trusted_proxies"), "{direct}");
    let unknown = get(&format!("/snippets/{HOST}?edge=akamai")).await;
    assert!(unknown.status == 400 && unknown.body.contains("one of direct, cloudflare is"), "{}", unknown.body);
    let unknown = get(&format!("/snippets/{HOST}?hop=2")).await;
    assert_eq!((unknown.status, unknown.body.as_str()), (400, "`hop` is not known here; proxy and edge are\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_port_gives_the_main_apps_snippets_as_the_command_prints_them() {
    let world = world().await;
    let get = async |path: &str| raw(world.health, "GET", "127.0.0.1", path, &[], "").await;
    for (query, arguments) in [("", vec![]), ("?proxy=nginx&edge=direct", vec!["--proxy", "nginx", "--edge", "direct"])]
    {
        let served = get(&format!("/snippets/{ADMIN_HOST}{query}")).await;
        let printed = std::process::Command::new(env!("CARGO_BIN_EXE_portalkeeper"))
            .args(["snippets", ADMIN_HOST, "--main-app"])
            .args(arguments)
            .env_remove("MANUAL_PROXY_ORIGIN")
            .env_remove("RESET_PORTAL_CNAME_TARGET")
            .output()
            .expect("the program starts");
        assert_eq!((served.status, served.body), (200, String::from_utf8(printed.stdout).expect("text")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_have_a_port_of_their_own() {
    use portalkeeper::http::serve::{Limits, serve};
    use portalkeeper::http::shutdown::Shutdown;
    use portalkeeper::web::HealthPages;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let world = world().await;
    let ready = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ready);
    let is_ready = move || if flag.load(Ordering::Relaxed) { Ok(()) } else { Err("starting".into()) };
    let pages = HealthPages::new(is_ready, |_| None);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, shutdown) = Shutdown::new();
    tokio::spawn(serve(listener, pages.service(), Limits::default(), shutdown, None));
    let get = async |path: &str| raw(address, "GET", "127.0.0.1", path, &[], "").await;
    assert_eq!(get("/healthz").await.status, 200);
    let waiting = get("/readyz").await;
    assert_eq!((waiting.status, waiting.body.as_str()), (503, "not ready: starting\n"));
    ready.store(true, Ordering::Relaxed);
    assert_eq!(get("/readyz").await.status, 200);
    assert_eq!(get("/").await.status, 404);
    let metrics = get("/metrics").await.body;
    // Counters of what has not happened here are not there yet.
    let later = ["portalkeeper_resets_total", "portalkeeper_repairs_total", "portalkeeper_foreign_writes_lost_total"];
    for metric in portalkeeper::telemetry::metrics::ALL.iter().filter(|metric| !later.contains(&metric.name)) {
        assert!(metrics.contains(metric.name), "no {} in {metrics}", metric.name);
    }
    assert!(!metrics.contains(HOST) && !metrics.contains("sandbox-"), "no host and no secret");
    drop(world);
}
