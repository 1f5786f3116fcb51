//! A certificate of the Origin CA that goes with its host is revoked at Cloudflare.
use std::sync::Arc;

use portalkeeper::api::clock::SystemClock;
use portalkeeper::backends::Worker;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::cloudflare_api::{Api, Budget};
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::{Npm, NpmOptions};
use portalkeeper::backends::origin_ca::CloudflareOriginCa;
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};

use super::{HOST, Scene, options};

/// A scene whose certificates are signed by a simulated Cloudflare account.
async fn signed_by_cloudflare() -> (Scene, Arc<CloudflareDouble>, RunningDouble) {
    let double = Arc::new(CloudflareDouble::new());
    double.add_zone("acme.example");
    double.add_zone("example.com");
    let cloudflare = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let url = cloudflare.url.join("client/v4").expect("an address");
    let api = Api::new(url, Secret::new("ca-token-canary"), Budget::new(Arc::new(SystemClock))).expect("an API");
    let mut scene = Scene::given(Source::OriginCa).await;
    let origin_ca = Some(Arc::new(CloudflareOriginCa::new(&api)) as _);
    let (source, gate) = (scene.source.clone(), scene.gate.clone());
    let options =
        NpmOptions { origin_ca, ..options(&scene.running, source, gate, &scene.book, scene.pace, &scene.secret) };
    let npm = Npm::new(options, scene.clock.clone()).expect("a backend");
    scene.worker = Worker::spawn(npm, scene.clock.clone(), scene.shutdown.clone());
    (scene, double, cloudflare)
}

fn calls(cloudflare: &RunningDouble) -> Vec<String> {
    let calls = cloudflare.log.calls();
    cloudflare.log.clear();
    let path = |path: &str| path.trim_start_matches("/client/v4").to_owned();
    calls.into_iter().map(|call| format!("{} {} {}", call.method, path(&call.path), call.status)).collect()
}

#[tokio::test]
async fn the_certificate_is_found_by_one_listing_of_its_zone_and_revoked() {
    let (scene, double, cloudflare) = signed_by_cloudflare().await;
    scene.want(HOST).await.expect("made");
    let id = double.certificates()[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(calls(&cloudflare), ["POST /certificates 200"]);
    let gone = scene.unwant(HOST).await.expect("deleted");
    assert_eq!((gone.remarks, scene.double.certificates().len()), (Vec::new(), 0));
    let last = format!("DELETE /certificates/{id} 200");
    assert_eq!(calls(&cloudflare), ["GET /zones 200", "GET /certificates 200", last.as_str()]);
    assert!(double.certificates().is_empty());
}

#[tokio::test]
async fn one_that_is_revoked_already_is_fine() {
    let (scene, double, cloudflare) = signed_by_cloudflare().await;
    scene.want(HOST).await.expect("made");
    cloudflare.log.clear();
    let gone = DoubleResponse::json(404, &serde_json::json!({"success": false, "errors": [{"code": 1101}]}));
    cloudflare.faults.push("DELETE", "/certificates", 1, Fault::Answer(gone));
    assert_eq!(scene.unwant(HOST).await.expect("deleted").remarks, []);
    assert_eq!((double.certificates().len(), calls(&cloudflare).len()), (1, 3));
}

#[tokio::test]
async fn a_refused_revocation_is_told_once_and_holds_nothing() {
    let (scene, double, cloudflare) = signed_by_cloudflare().await;
    scene.want(HOST).await.expect("made");
    double.accept_token("another");
    let gone = scene.unwant(HOST).await.expect("deleted all the same");
    assert_eq!((scene.double.hosts().len(), scene.double.certificates().len()), (0, 0));
    assert_eq!(gone.remarks.iter().map(|remark| remark.reason).collect::<Vec<_>>(), ["CertificateNotRevoked"]);
    let words = &gone.remarks[0].message;
    assert!(words.contains(HOST) && words.contains("Origin Server") && !words.contains("canary"), "{words}");
    assert_eq!(double.certificates().len(), 1);
    assert!(!calls(&cloudflare).iter().any(|call| call.starts_with("DELETE")));
    assert_eq!(scene.unwant(HOST).await.expect("gone").remarks, []);
}
