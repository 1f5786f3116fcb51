//! The embedded API through `kube::Client`, as the controller will use it.
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::{FINALIZER, PortalClaim, ResetPortal};
use portalkeeper::apiserver::ApiServer;
use serde_json::{Value, json};

struct Scene {
    folder: tempfile::TempDir,
    server: ApiServer,
}

impl Scene {
    /// A server that knows the project's definitions.
    async fn given() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = open(folder.path()).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(server.client("default"));
        for definition in portalkeeper::app::crds::all() {
            definitions.create(&PostParams::default(), &definition).await.expect("a definition");
        }
        Self { folder, server }
    }
    fn portals(&self) -> Api<ResetPortal> {
        Api::default_namespaced(self.server.client("default"))
    }
}

async fn open(folder: &std::path::Path) -> ApiServer {
    let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
    ApiServer::open(&folder.join("api.db"), clock).await.expect("a server")
}

fn portal(name: &str, spec: Value) -> ResetPortal {
    let object = json!({"apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).expect("a portal")
}

fn acme() -> ResetPortal {
    portal("acme", json!({"domain": "acme.example"}))
}

/// Code, reason and message of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String, String) {
    match result.expect_err("a refusal") {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("not a Status: {other}"),
    }
}

#[tokio::test]
async fn an_object_lives_through_create_update_and_delete() {
    let scene = Scene::given().await;
    let portals = scene.portals();
    // when it is made, then defaults and metadata are filled in
    let made = portals.create(&PostParams::default(), &acme()).await.expect("made");
    assert_eq!((made.metadata.generation, made.spec.dns.proxied), (Some(1), true));
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(
        refusal(portals.create(&PostParams::default(), &acme()).await),
        (409, "AlreadyExists".into(), "resetportals.portalkeeper.dev \"acme\" already exists".into())
    );
    // when its spec changes, then the generation rises; a label or the same again raises nothing
    let patch = |value: Value| Patch::Merge(value);
    let params = PatchParams::default();
    let changed = portals.patch("acme", &params, &patch(json!({"spec": {"enabled": false}}))).await.expect("changed");
    assert_eq!(changed.metadata.generation, Some(2));
    let labelled =
        portals.patch("acme", &params, &patch(json!({"metadata": {"labels": {"a": "b"}}}))).await.expect("labelled");
    assert_eq!(labelled.metadata.generation, Some(2));
    let again = portals.patch("acme", &params, &patch(json!({"spec": {"enabled": false}}))).await.expect("unchanged");
    assert_eq!(again.metadata.resource_version, labelled.metadata.resource_version);
    // when an older version is put, then it is refused
    assert_eq!(
        refusal(portals.replace("acme", &PostParams::default(), &made).await),
        (409, "Conflict".into(), "Operation cannot be fulfilled on resetportals.portalkeeper.dev \"acme\": the object has been modified; please apply your changes to the latest version and try again".into())
    );
    // when it is deleted, then it is gone
    portals.delete("acme", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(
        refusal(portals.get("acme").await),
        (404, "NotFound".into(), "resetportals.portalkeeper.dev \"acme\" not found".into())
    );
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let scene = Scene::given().await;
    let portals = scene.portals();
    portals.create(&PostParams::default(), &acme()).await.expect("made");
    let both = Patch::Merge(json!({"spec": {"enabled": false}, "status": {"host": "reset.acme.example"}}));
    let by_status = portals.patch_status("acme", &PatchParams::default(), &both).await.expect("status");
    assert_eq!((by_status.spec.enabled, by_status.metadata.generation), (true, Some(1)));
    assert_eq!(by_status.status.and_then(|s| s.host).as_deref(), Some("reset.acme.example"));
    let both = Patch::Merge(json!({"spec": {"enabled": false}, "status": {"host": "other.example"}}));
    let by_main = portals.patch("acme", &PatchParams::default(), &both).await.expect("spec");
    assert_eq!((by_main.spec.enabled, by_main.metadata.generation), (false, Some(2)));
    assert_eq!(by_main.status.and_then(|s| s.host).as_deref(), Some("reset.acme.example"));
}

#[tokio::test]
async fn a_finalizer_holds_a_deleted_object_until_it_is_taken_off() {
    let scene = Scene::given().await;
    let portals = scene.portals();
    portals.create(&PostParams::default(), &acme()).await.expect("made");
    // given the finalizer as kube's own helper puts it on: a test of a missing path against null
    let add = json!([
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]},
    ]);
    let add: json_patch::Patch = serde_json::from_value(add).expect("a patch");
    portals.patch("acme", &PatchParams::default(), &Patch::Json::<()>(add)).await.expect("held");
    // when it is deleted, twice, then it is marked once
    let first = portals.delete("acme", &DeleteParams::default()).await.expect("marked").left().expect("still there");
    assert!(first.metadata.deletion_timestamp.is_some());
    let second = portals.delete("acme", &DeleteParams::default()).await.expect("marked").left().expect("still there");
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    // when the finalizer goes, then the object goes
    let off: json_patch::Patch = serde_json::from_value(json!([
        {"op": "test", "path": "/metadata/finalizers/0", "value": FINALIZER},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]))
    .expect("a patch");
    portals.patch("acme", &PatchParams::default(), &Patch::Json::<()>(off)).await.expect("let go");
    assert_eq!(refusal(portals.get("acme").await).0, 404);
}

#[tokio::test]
async fn bad_objects_are_refused_in_words() {
    let scene = Scene::given().await;
    let client = scene.server.client("default");
    let attempt = async |name: &str, spec: Value| {
        let object = json!({"apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal", "metadata": {"name": name}, "spec": spec});
        let path = "/apis/portalkeeper.dev/v1alpha1/namespaces/default/resetportals?fieldValidation=Strict";
        let request = hyper::Request::post(path).body(object.to_string().into_bytes()).expect("a request");
        refusal(client.request::<Value>(request).await)
    };
    assert_eq!(
        attempt("a", json!({"domain": "acme.example", "nope": 1})).await,
        (
            400,
            "BadRequest".into(),
            "ResetPortal in version \"v1alpha1\" cannot be handled as a ResetPortal: strict decoding error: unknown field \"spec.nope\""
                .into()
        )
    );
    assert_eq!(
        attempt("a", json!({})).await,
        (
            422,
            "Invalid".into(),
            "ResetPortal.portalkeeper.dev \"a\" is invalid: [spec.domain: Required value, <nil>: Invalid value: null: some validation \
             rules were not checked because the object was invalid; correct the existing errors to complete validation]"
                .into()
        )
    );
    let (code, _, message) = attempt("Not_A_Name", json!({"domain": "acme.example"})).await;
    assert_eq!(code, 422);
    assert!(
        message.contains("metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain"),
        "{message}"
    );
    // and a namespace that is not there
    let elsewhere: Api<ResetPortal> = Api::namespaced(scene.server.client("default"), "nowhere");
    assert_eq!(
        refusal(elsewhere.create(&PostParams::default(), &acme()).await),
        (404, "NotFound".into(), "namespaces \"nowhere\" not found".into())
    );
}

#[tokio::test]
async fn one_of_two_claims_wins() {
    let scene = Scene::given().await;
    let claims: Api<PortalClaim> = Api::all(scene.server.client("default"));
    let claim = |namespace: &str| {
        let spec = json!({"kind": "Host", "value": "reset.acme.example", "portalNamespace": namespace, "portalName": "acme", "portalUid": "1"});
        let object = json!({"apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClaim", "metadata": {"name": "host--reset.acme.example"}, "spec": spec});
        serde_json::from_value::<PortalClaim>(object).expect("a claim")
    };
    let attempts = (0..20).map(|index| {
        let (claims, claim) = (claims.clone(), claim(&format!("team-{index}")));
        async move { claims.create(&PostParams::default(), &claim).await.is_ok() }
    });
    let won = futures_util::future::join_all(attempts).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_watch_sees_a_label_come_and_go() {
    let scene = Scene::given().await;
    let portals = scene.portals();
    let list = portals.list(&ListParams::default()).await.expect("a list");
    let since = list.metadata.resource_version.expect("a version");
    let params = WatchParams::default().labels("team=mail");
    let mut events = portals.watch(&params, &since).await.expect("a watch").boxed();
    portals.create(&PostParams::default(), &acme()).await.expect("made");
    for team in [json!("mail"), json!("other")] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"team": team}}}));
        portals.patch("acme", &PatchParams::default(), &patch).await.expect("labelled");
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("in time");
        match next.expect("an event").expect("readable") {
            WatchEvent::Added(_) => seen.push("added"),
            WatchEvent::Deleted(_) => seen.push("deleted"),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, ["added", "deleted"]);
}

#[tokio::test]
async fn kubes_own_watcher_follows_by_list_and_by_stream() {
    let scene = Scene::given().await;
    let portals = scene.portals();
    portals.create(&PostParams::default(), &acme()).await.expect("made");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut objects = watcher(portals.clone(), config).applied_objects().boxed();
        let first = tokio::time::timeout(Duration::from_secs(10), objects.next()).await.expect("in time");
        assert_eq!(first.expect("an object").expect("readable").metadata.name.as_deref(), Some("acme"));
        let toggle = !portals.get("acme").await.expect("there").spec.enabled;
        let patch = Patch::Merge(json!({"spec": {"enabled": toggle}}));
        portals.patch("acme", &PatchParams::default(), &patch).await.expect("changed");
        let second = tokio::time::timeout(Duration::from_secs(10), objects.next()).await.expect("in time");
        assert_eq!(second.expect("an object").expect("readable").spec.enabled, toggle);
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_old_watches_list_anew() {
    let scene = Scene::given().await;
    let made = scene.portals().create(&PostParams::default(), &acme()).await.expect("made");
    let since = made.metadata.resource_version.clone().expect("a version");
    scene
        .portals()
        .patch("acme", &PatchParams::default(), &Patch::Merge(json!({"spec": {"enabled": false}})))
        .await
        .expect("changed");
    drop(scene.server);
    let server = open(scene.folder.path()).await;
    let portals: Api<ResetPortal> = Api::default_namespaced(server.client("default"));
    let found = portals.get("acme").await.expect("there");
    assert_eq!((found.metadata.uid, found.spec.enabled), (made.metadata.uid, false));
    let watch = portals.watch(&WatchParams::default(), &since).await.expect("a watch");
    let first = watch.boxed().next().await.expect("an event").expect("readable");
    let kube::api::WatchEvent::Error(status) = first else { panic!("{first:?}") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}

#[tokio::test]
async fn secrets_and_config_maps_are_kept_and_text_is_encoded() {
    let scene = Scene::given().await;
    let secrets: Api<Secret> = Api::default_namespaced(scene.server.client("default"));
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"token": "abc"}});
    let made =
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).expect("a secret")).await.expect("made");
    assert_eq!(made.data.expect("data")["token"].0, b"abc");
    assert!(made.string_data.is_none());
    let maps: Api<ConfigMap> = Api::default_namespaced(scene.server.client("default"));
    let map = json!({"metadata": {"generateName": "m-"}, "data": {"a": "b"}});
    let made = maps.create(&PostParams::default(), &serde_json::from_value(map).expect("a map")).await.expect("made");
    assert!(made.metadata.name.expect("a name").starts_with("m-"));
}
