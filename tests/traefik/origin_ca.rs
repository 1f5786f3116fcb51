//! Certificates of Cloudflare's Origin CA in the watched folder.
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::TestClock;
use portalkeeper::backends::traefik::{Layout, Traefik, TraefikOptions};
use portalkeeper::backends::{BackendError, Programmed, Want};
use portalkeeper::http::double::{DoubleResponse, Fault};

use super::{Real, Watched};
use crate::peers::traefiks;
use crate::scene::{Scene, intent};
use crate::signer::{Account, shown};

const HOST: &str = "reset.acme.example";
const LAYOUTS: [Layout; 2] = [Layout::PerHost, Layout::Merged];

/// As after a restart of the program, at this time, with a class of https.
fn scene(options: TraefikOptions, account: &Account, at: Timestamp) -> Scene {
    let clock = Arc::new(TestClock::new(at));
    let mut options = TraefikOptions { origin_ca: Some(account.signs(&clock)), ..options };
    options.routing.https = true;
    Scene::at(Traefik::new(options).expect("a backend"), clock)
}

async fn want(scene: &Scene) -> Result<Programmed, BackendError> {
    scene.want(HOST).await
}

/// The names of our files with certificates.
fn certificates(watched: &Watched) -> Vec<String> {
    watched.ours().into_iter().filter(|name| name.ends_with(".tls.yml")).collect()
}

#[tokio::test]
async fn a_certificate_has_a_file_of_its_own_that_not_everybody_may_read() {
    for layout in LAYOUTS {
        let (watched, account) = (Watched::new(), Account::given().await);
        let before = watched.foreign();
        let options = || watched.options(layout, "127.0.0.1:5000", None);
        let first = scene(options(), &account, Timestamp::now());
        // when a portal is made, then its certificate is there, and its router is without a resolver
        let made = want(&first).await.expect("made");
        assert_eq!(made.certificate.as_deref(), Some("with a certificate of Cloudflare's Origin CA"), "{layout:?}");
        assert_eq!(account.calls(), ["POST /certificates 200"]);
        let names = certificates(&watched);
        assert_eq!((names.len(), watched.ours().len()), (1, 2));
        let meta = std::fs::metadata(watched.path().join(&names[0])).expect("there");
        let folder = std::fs::metadata(watched.path()).expect("there");
        assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o640, folder.gid()));
        let route = watched.files().into_iter().find(|(name, _)| name.starts_with("pk1-") && *name != names[0]);
        let route = route.expect("a route").1;
        assert!(!route.contains("PRIVATE KEY") && !route.contains("certResolver") && route.contains("tls:"), "{route}");
        // when the program starts anew and looks again, then nothing is signed or written
        let writes = watched.writes();
        let second = scene(options(), &account, Timestamp::now());
        want(&second).await.expect("as it was");
        second.clock.advance(SignedDuration::from_secs(61));
        want(&second).await.expect("as it was");
        assert_eq!((account.calls().len(), watched.writes()), (0, writes));
        // when somebody damages or removes it, then it is put back without asking Cloudflare
        let text = watched.files()[&names[0]].clone();
        watched.write(&names[0], &text.replace("keyFile", "keyfile"));
        second.clock.advance(SignedDuration::from_secs(61));
        want(&second).await.expect("repaired");
        watched.remove(&names[0]);
        second.clock.advance(SignedDuration::from_secs(61));
        want(&second).await.expect("repaired");
        assert_eq!((account.calls().len(), watched.files()[&names[0]].clone()), (0, text.clone()));
        // when it ends in 29 days, then another one takes its place
        let late = Timestamp::now().checked_add(SignedDuration::from_hours(24 * (5475 - 29))).expect("a time");
        want(&scene(options(), &account, late)).await.expect("renewed");
        assert_eq!(account.calls(), ["POST /certificates 200"]);
        assert_ne!(watched.files()[&names[0]], text);
        // when the portal goes, then so does all of it, and the certificate is revoked
        second.unwant(HOST).await.expect("deleted");
        assert_eq!(account.calls().len(), 1, "what is there is revoked");
        assert_eq!((watched.ours().len(), watched.foreign()), (0, before));
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_no_route_and_a_refused_revocation_is_told() {
    let (watched, account) = (Watched::new(), Account::given().await);
    let scene = scene(watched.options(Layout::PerHost, "127.0.0.1:5000", None), &account, Timestamp::now());
    account.running.faults.push("POST", "/certificates", 1, Fault::Answer(DoubleResponse::text(429, "")));
    assert_eq!(want(&scene).await.expect_err("throttled").reason, "CertificateRateLimited");
    assert_eq!(watched.ours().len(), 0);
}

#[tokio::test]
async fn what_is_left_in_place_loses_our_mark_and_keeps_its_certificate() {
    let (watched, account) = (Watched::new(), Account::given().await);
    let scene = scene(watched.options(Layout::PerHost, "127.0.0.1:5000", None), &account, Timestamp::now());
    want(&scene).await.expect("made");
    account.calls();
    let intent = intent(HOST);
    let released = Want::Released { mark: intent.mark, hosts: vec![intent.host] };
    scene.worker.submit(intent.portal, released).await.expect("released");
    let left: Vec<_> = watched.files().into_iter().filter(|(name, _)| name.starts_with("portal-")).collect();
    assert_eq!((watched.ours().len(), left.len(), account.calls().len()), (0, 2, 0));
    let certificate = left.iter().find(|(name, _)| name.ends_with(".tls.yml")).expect("a certificate");
    assert!(certificate.1.contains("PRIVATE KEY") && !certificate.1.contains('#'));
}

#[tokio::test]
async fn a_visitor_of_real_traefik_is_shown_that_certificate_until_it_is_deleted() {
    for peer in traefiks() {
        for layout in LAYOUTS {
            let what = format!("{}, {layout:?}", peer.name);
            let (real, account) = (Real::start(&peer, Duration::from_millis(100)).await, Account::given().await);
            let listen = ([127, 0, 0, 1], real.listen).into();
            let scene = scene(real.options(layout), &account, Timestamp::now());
            // when a portal is made, then Traefik confirms it, and shows the certificate that was signed for it
            want(&scene).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            let end = Instant::now() + Duration::from_secs(20);
            while shown(listen, HOST).await.as_ref() != Some(&account.only()) {
                assert!(Instant::now() < end, "{what}: the certificate is not shown");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while !want(&scene).await.expect("there").doubts.is_empty() {
                assert!(Instant::now() < end, "{what}: the router is not confirmed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let signed = account.only();
            // when it is deleted, then it is shown no longer
            scene.unwant(HOST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            while shown(listen, HOST).await.as_ref() == Some(&signed) {
                assert!(Instant::now() < end, "{what}: the certificate is still shown");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!((real.watched.ours().len(), account.double.certificates()), (0, Vec::new()), "{what}");
        }
    }
}
