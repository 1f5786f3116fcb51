//! The Ingress backend against the embedded API, for Ingress and for HTTPRoute.
mod missing;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use http_body_util::BodyExt;
use jiff::SignedDuration;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use portalkeeper::api::HostName;
use portalkeeper::api::condition::Truth;
use portalkeeper::api::ingress::IssuerKind;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::ingress::{Flavour, Ingress, LABEL_MARK, Target, Tls};
use portalkeeper::backends::{Backend, ErrorClass, Scope};
use portalkeeper::plan::{Intent, Item};
use serde_json::{Value, json};

use crate::peers::kubernetes_validate;
use crate::scene::{Scene, four_hosts, host, intent};
use crate::world::World;

const NAMESPACE: &str = "apps";

fn ingress() -> Flavour {
    let annotations = BTreeMap::from([("example.com/timeout".to_owned(), "30".to_owned())]);
    Flavour::Ingress { class_name: Some("public".to_owned()), annotations, tls: Tls::Secret("wildcard".to_owned()) }
}

fn route() -> Flavour {
    Flavour::HttpRoute { gateway: "public".to_owned(), gateway_namespace: None, section: None }
}

fn target(flavour: Flavour) -> Target {
    Target { namespace: NAMESPACE.to_owned(), service: "portalkeeper".to_owned(), port: 5000, flavour }
}

/// What goes wrong between backend and API, and what passed.
#[derive(Default)]
struct Wire {
    fail_reads: AtomicBool,
    lose_answer: AtomicBool,
    writes: AtomicUsize,
}

/// A client of the same API through a wire that can be cut.
fn wired(client: kube::Client, wire: Arc<Wire>) -> kube::Client {
    let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
        let (client, wire) = (client.clone(), Arc::clone(&wire));
        async move {
            let reads = request.method() == hyper::Method::GET;
            let broken = |words: &str| {
                let status =
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": words, "code": 500});
                let body = kube::client::Body::from(status.to_string().into_bytes());
                hyper::Response::builder().status(500).body(body).expect("a response")
            };
            if reads && wire.fail_reads.load(Ordering::SeqCst) {
                return Ok(broken("reads fail on purpose"));
            }
            if !reads {
                wire.writes.fetch_add(1, Ordering::SeqCst);
            }
            let answer = client.send(request).await?;
            if !reads && wire.lose_answer.swap(false, Ordering::SeqCst) {
                return Ok(broken("the answer is lost on purpose"));
            }
            let (parts, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            Ok::<_, kube::Error>(hyper::Response::from_parts(parts, kube::client::Body::from(body)))
        }
    });
    kube::Client::new(service, "default")
}

struct Cluster {
    world: World,
    wire: Arc<Wire>,
    flavour: Flavour,
}

impl Cluster {
    async fn start(flavour: Flavour) -> Self {
        let world = World::stopped(None).await;
        let cluster = Self { world, wire: Arc::default(), flavour };
        for namespace in [NAMESPACE, "elsewhere"] {
            cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await;
        }
        if matches!(cluster.flavour, Flavour::HttpRoute { .. }) {
            cluster.put(gateway_api()).await;
        }
        cluster.make_foreign("theirs", NAMESPACE, "www.acme.example").await;
        cluster
    }
    async fn put(&self, object: Value) {
        self.world.put(&object).await;
    }
    fn resource(&self) -> ApiResource {
        let (group, version) = self.flavour.api_version().split_once('/').expect("a group");
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, self.flavour.kind()))
    }
    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.world.client.clone(), namespace, &self.resource())
    }
    async fn all(&self) -> Vec<Value> {
        let api: Api<DynamicObject> = Api::all_with(self.world.client.clone(), &self.resource());
        let items = api.list(&ListParams::default()).await.expect("listed").items;
        items.into_iter().map(|object| serde_json::to_value(object).expect("JSON")).collect()
    }
    /// Our objects in the form in which they stand.
    async fn ours(&self) -> Vec<Value> {
        let labelled = |object: &Value| object["metadata"]["labels"][LABEL_MARK].is_string();
        self.all().await.into_iter().filter(labelled).collect()
    }
    async fn make_foreign(&self, name: &str, namespace: &str, host: &str) {
        let spec = match &self.flavour {
            Flavour::Ingress { .. } => {
                json!({"ingressClassName": "public", "rules": [{"host": host, "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "theirs", "port": {"number": 80}}}},
                ]}}]})
            }
            Flavour::HttpRoute { .. } => json!({
                "parentRefs": [{"name": "public", "namespace": NAMESPACE}], "hostnames": [host],
                "rules": [{"backendRefs": [{"name": "theirs", "port": 80}]}],
            }),
        };
        let object = json!({
            "apiVersion": self.flavour.api_version(), "kind": self.flavour.kind(),
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        self.api(namespace).create(&PostParams::default(), &object).await.expect("made");
    }
    fn backend_to(&self, target: Target) -> Ingress {
        Ingress::new(wired(self.world.client.clone(), Arc::clone(&self.wire)), target)
    }
    fn hosts_of(&self, object: &Value) -> Vec<String> {
        self.flavour.hosts(object)
    }
}

/// The part of the Gateway API's definition that is used here.
fn gateway_api() -> Value {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {"plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
            }],
        },
    })
}

#[async_trait]
impl Harness for Cluster {
    type Backend = Ingress;
    fn backend(&self) -> Ingress {
        self.backend_to(target(self.flavour.clone()))
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let ours = self.ours().await;
        let mut owned: Vec<_> =
            ours.iter().map(|object| (self.hosts_of(object).concat(), object["spec"].to_string())).collect();
        owned.sort();
        owned
    }
    async fn foreign(&self) -> String {
        let foreign =
            self.all().await.into_iter().filter(|object| !object["metadata"]["labels"][LABEL_MARK].is_string());
        Value::Array(foreign.collect()).to_string()
    }
    async fn writes(&self) -> usize {
        self.wire.writes.load(Ordering::SeqCst)
    }
    async fn put_foreign(&self, host: &HostName) {
        self.make_foreign("taken", NAMESPACE, host.as_str()).await;
    }
    async fn remove_foreign(&self, host: &HostName) {
        for object in self.all().await {
            let foreign = !object["metadata"]["labels"][LABEL_MARK].is_string();
            if foreign && self.hosts_of(&object).iter().any(|one| one == host.as_str()) {
                let text = |field: &str| object["metadata"][field].as_str().expect("there").to_owned();
                let api = self.api(&text("namespace"));
                api.delete(&text("name"), &DeleteParams::default()).await.expect("removed");
            }
        }
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.wire.fail_reads.store(fail, Ordering::SeqCst);
        true
    }
    fn lose_next_answer(&self) -> bool {
        self.wire.lose_answer.store(true, Ordering::SeqCst);
        true
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_of_ingress_and_httproute() {
    conformance::run("ingress", &Cluster::start(ingress()).await).await;
    conformance::run("httproute", &Cluster::start(route()).await).await;
}

/// Each want comes when nothing is believed any more.
fn given(backend: Ingress) -> Scene {
    let mut scene = Scene::of(backend);
    scene.pace = SignedDuration::from_hours(1);
    scene
}

/// What the portal wants when it may take things over.
fn adopting(name: &str) -> Intent {
    Intent { adopt: true, ..intent(name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_is_unknown_until_its_controller_has_taken_it_up() {
    for (flavour, waiting, status) in [
        (ingress(), "AwaitingLoadBalancer", json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})),
        (
            route(),
            "AwaitingGateway",
            json!({"parents": [{"parentRef": {"name": "public"}, "controllerName": "x.example/y", "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
            ]}]}),
        ),
    ] {
        let cluster = Cluster::start(flavour).await;
        let scene = given(cluster.backend());
        let doubt = scene.want("reset.acme.example").await.expect("made").doubts.remove(0);
        assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, waiting), "{}", doubt.message);
        // when its controller writes the status, then there is nothing more to say
        let name = cluster.ours().await[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        let set = |status: &Value| Patch::Merge(json!({"status": status}));
        let api = cluster.api(NAMESPACE);
        api.patch_status(&name, &PatchParams::default(), &set(&status)).await.expect("written");
        assert_eq!(scene.want("reset.acme.example").await.expect("there").doubts, []);
        // a gateway that refuses the route is believed
        if waiting == "AwaitingGateway" {
            let refused = json!({"parents": [{"parentRef": {"name": "public"}, "controllerName": "x.example/y", "conditions": [
                {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no listener"},
            ]}]});
            api.patch_status(&name, &PatchParams::default(), &set(&refused)).await.expect("written");
            let doubt = scene.want("reset.acme.example").await.expect("there").doubts.remove(0);
            assert_eq!((doubt.truth, doubt.reason), (Truth::False, "RouteRefused"), "{}", doubt.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_somebody_took_over_are_told_and_taken_back_only_on_request() {
    let cluster = Cluster::start(ingress()).await;
    let scene = given(cluster.backend());
    scene.want("reset.acme.example").await.expect("made");
    let made = cluster.ours().await.remove(0);
    let managers = made["metadata"]["managedFields"].as_array().expect("managed fields");
    assert!(managers.iter().any(|m| m["manager"] == "portalkeeper" && m["operation"] == "Apply"), "{made}");
    assert_eq!(made["metadata"].get("ownerReferences"), None);
    // what others add is left alone
    let api = cluster.api(NAMESPACE);
    let name = made["metadata"]["name"].as_str().expect("a name");
    let theirs = json!({"metadata": {"annotations": {"other.example/added": "by them"}}});
    api.patch(name, &PatchParams::apply("them"), &Patch::Merge(&theirs)).await.expect("added");
    assert_eq!(scene.want("reset.acme.example").await.expect("as wanted").changes, Vec::<String>::new());
    // given that somebody leads the host elsewhere by force
    let mut elsewhere = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}});
    elsewhere["spec"]["rules"] = made["spec"]["rules"].clone();
    elsewhere["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("theirs");
    api.patch(name, &PatchParams::apply("them").force(), &Patch::Apply(&elsewhere)).await.expect("taken");
    // then it is a conflict that names them and the field, and nothing is overwritten
    let refused = scene.want("reset.acme.example").await.expect_err("taken");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "FieldConflict"), "{refused}");
    assert!(refused.message.contains("\"them\"") && refused.message.contains("rules"), "{refused}");
    assert!(cluster.ours().await[0]["spec"].to_string().contains("theirs"));
    // when the portal may adopt, then the fields are ours again, and what others added is still there
    scene.submit(adopting("reset.acme.example")).await.expect("taken back");
    let healed = cluster.ours().await.remove(0);
    assert_eq!(healed["spec"], made["spec"]);
    assert_eq!(healed["metadata"]["annotations"]["other.example/added"], "by them");
    // when it is deleted by hand, then it is made again
    api.delete(name, &DeleteParams::default()).await.expect("deleted");
    scene.want("reset.acme.example").await.expect("made again");
    assert_eq!(cluster.ours().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_namespace_is_respected_and_a_copy_of_ours_is_not_ours() {
    let cluster = Cluster::start(ingress()).await;
    let scene = given(cluster.backend());
    cluster.make_foreign("first", "elsewhere", "reset.acme.example").await;
    let taken = scene.want("reset.acme.example").await.expect_err("taken");
    assert!(taken.message.contains("Ingress elsewhere/first to theirs"), "{taken}");
    assert!(taken.message.contains("cannot be taken over, because it stands in another namespace"), "{taken}");
    assert!(taken.message.contains("delete it there, or take the host out of it"), "{taken}");
    // not even by adoption, as it is not in our namespace
    let refused = scene.submit(adopting("reset.acme.example")).await.expect_err("elsewhere");
    assert!(refused.message.contains("stands in another namespace") && !refused.message.contains("adopt"), "{refused}");
    // and nothing is said of it that is not so
    assert!(!refused.message.contains("serves other names"), "{refused}");
    // which whoever gives advice can ask before
    let scope = Scope { hosts: vec![host("reset.acme.example"), host("www.acme.example")], ..Scope::default() };
    let seen = cluster.backend().observe(&scope).await.expect("seen");
    let adoptable = |name: &str| seen.iter().find(|o| o.item.host == name).expect("seen").item.adoptable();
    assert_eq!((adoptable("reset.acme.example"), adoptable("www.acme.example")), (false, true));
    cluster.remove_foreign(&host("reset.acme.example")).await;
    scene.want("reset.acme.example").await.expect("free now");
    // given a copy that somebody made of ours, when ours goes, then the copy stays
    let mut copy = cluster.ours().await.remove(0);
    copy["metadata"] = json!({"name": "copy", "namespace": NAMESPACE, "labels": copy["metadata"]["labels"]});
    let copy: DynamicObject = serde_json::from_value(copy).expect("an object");
    cluster.api(NAMESPACE).create(&PostParams::default(), &copy).await.expect("made");
    scene.unwant("reset.acme.example").await.expect("gone");
    let left = cluster.ours().await;
    assert_eq!((left.len(), left[0]["metadata"]["name"].as_str()), (1, Some("copy")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_class_changes_the_objects_and_takes_away_what_it_drops() {
    let cluster = Cluster::start(ingress()).await;
    given(cluster.backend()).want("reset.acme.example").await.expect("made");
    let issuer = Tls::Issuer { kind: IssuerKind::ClusterIssuer, name: "letsencrypt".to_owned() };
    let flavour = Flavour::Ingress { class_name: Some("other".to_owned()), annotations: BTreeMap::new(), tls: issuer };
    let scene = given(cluster.backend_to(target(flavour)));
    let done = scene.want("reset.acme.example").await.expect("changed");
    assert_eq!(done.changes.len(), 1, "{done:?}");
    let object = cluster.ours().await.remove(0);
    assert_eq!(object["spec"]["ingressClassName"], "other");
    assert_eq!(object["metadata"]["annotations"]["cert-manager.io/cluster-issuer"], "letsencrypt");
    assert_eq!(object["metadata"]["annotations"].get("example.com/timeout"), None);
    assert_eq!(object["spec"]["tls"][0]["hosts"], json!(["reset.acme.example"]));
    let again = scene.want("reset.acme.example").await.expect("as wanted");
    assert_eq!(again.changes, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_valid_to_kubernetes_itself() {
    let Some(validate) = kubernetes_validate() else { return };
    let cluster = Cluster::start(ingress()).await;
    given(cluster.backend()).want("reset.acme.example").await.expect("made");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ingress.yaml");
    let mut object = cluster.ours().await.remove(0);
    object["apiVersion"] = json!("networking.k8s.io/v1");
    object["kind"] = json!("Ingress");
    std::fs::write(&file, object.to_string()).expect("written");
    let checked = Command::new(&validate.program).args(["--strict", "--quiet"]).arg(&file).output().expect("started");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_portal_gets_its_ingress_and_its_finalizer_takes_it_away() {
    // given a class that routes by Ingress, and somebody's Ingress beside
    let world = World::start().await;
    world.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await;
    let cluster = Cluster { world, wire: Arc::default(), flavour: ingress() };
    cluster.make_foreign("theirs", NAMESPACE, "www.acme.localhost").await;
    let before = cluster.foreign().await;
    let classes: Api<portalkeeper::api::PortalClass> = Api::all(cluster.world.client.clone());
    let through = json!({"spec": {
        "proxy": {"caddy": null, "ingress": {"namespace": NAMESPACE, "className": "public"}},
        // The controller of this class is played by the page server itself.
        "probe": {"address": cluster.world.pages.to_string()},
    }});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
    // when a portal is declared, then its Ingress is made and the proof of life decides
    cluster.world.create("acme", json!({"domain": "acme.localhost"})).await;
    cluster.world.until_ready("acme").await;
    cluster.world.until_condition("acme", "RouteProgrammed", "True", "Proved").await;
    let ours = cluster.ours().await.remove(0);
    assert_eq!(ours["spec"]["rules"][0]["host"], "reset.acme.localhost");
    assert_eq!(ours["metadata"]["annotations"]["portalkeeper.dev/portal"], "default/acme");
    // when it is deleted, then so is the Ingress, and only it
    cluster.world.delete("acme").await;
    assert_eq!((cluster.ours().await.len(), cluster.foreign().await), (0, before));
}
