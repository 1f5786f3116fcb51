//! Unmodified kubectl, the oldest supported and the newest, as a person types it.
mod writes;

use std::process::{Output, Stdio};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::harness::{Server, on_each_server};
use crate::peers::{Peer, kubectls};
use crate::process::text;

/// One kubectl for one server, in the scenario's namespace and with a home of its own.
struct Kubectl<'a> {
    peer: &'a Peer,
    server: &'a Server,
    home: TempDir,
}

impl Kubectl<'_> {
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.peer.program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.server.kubeconfig)
            .current_dir(self.home.path())
            .args(["--namespace", &self.server.namespace])
            .args(words.split(' '))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
    async fn run(&self, words: &str) -> Output {
        self.command(words).output().await.unwrap()
    }
    fn about(&self, words: &str) -> String {
        format!("{} on the {} server: {words}", self.peer.name, self.server.name)
    }
    /// What a command that works prints.
    async fn ok(&self, words: &str) -> String {
        let output = self.run(words).await;
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}: {out}{errors}", self.about(words));
        out
    }
    /// What a refused command says.
    async fn refused(&self, words: &str) -> String {
        let output = self.run(words).await;
        assert!(!output.status.success(), "{}: {}", self.about(words), text(&output.stdout));
        text(&output.stderr).trim().to_owned()
    }
    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.home.path().join(name), content).unwrap();
    }
    /// The words of each line.
    async fn table(&self, words: &str) -> Vec<Vec<String>> {
        let out = self.ok(words).await;
        out.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }
    /// Makes a definition of gadgets with a size, and waits until kubectl finds it.
    async fn gadgets(&self) -> String {
        let spec = json!({"type": "object", "description": "What is wanted.", "required": ["size"], "properties": {
            "size": {"type": "integer", "description": "How big."}, "colour": {"type": "string", "description": "Its look."}}});
        let status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = json!({"type": "object", "description": "A toy.", "properties": {"spec": spec, "status": status}});
        let path = self.server.gadgets(&schema).await;
        let name = self.gadget_name();
        self.server.until("kubectl finds it", async || self.run(&format!("get {name}")).await.status.success()).await;
        let place = format!("apis/{}/v1", self.server.group);
        self.server
            .until("it is described", async || !self.server.get("/openapi/v3").await.body["paths"][&place].is_null())
            .await;
        path
    }
    fn gadget_name(&self) -> String {
        format!("gadgets.{}", self.server.group)
    }
    fn gadget(&self, spec: &str) -> String {
        format!("apiVersion: {}/v1\nkind: Gadget\nmetadata:\n  name: toy\nspec: {spec}\n", self.server.group)
    }
}

/// Runs a scenario with the oldest supported kubectl and with the newest, on each server.
async fn with_kubectl(scenario: impl AsyncFn(&Kubectl<'_>)) {
    let all = kubectls();
    let newest = all.len().saturating_sub(1);
    for (_, peer) in all.iter().enumerate().filter(|(at, _)| *at == 0 || *at == newest) {
        on_each_server(async |server| {
            let home = tempfile::tempdir().unwrap();
            scenario(&Kubectl { peer, server, home }).await;
        })
        .await;
    }
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";

#[tokio::test]
async fn explain_describes_kinds_and_fields() {
    with_kubectl(async |k| {
        let said = k.ok("explain configmap.data").await;
        for words in [
            "KIND:       ConfigMap\n",
            "VERSION:    v1\n",
            "FIELD: data <map[string]string>\n",
            "Data contains the configuration data.",
        ] {
            assert!(said.contains(words), "{}: {said}", k.about(words));
        }
        let said = k.ok("explain ingress.spec.rules.http.paths.pathType").await;
        assert!(said.contains("GROUP:      networking.k8s.io") && said.contains("FIELD: pathType <string>"), "{said}");
        let said = k.ok("explain secret").await;
        assert!(said.contains("metadata\t<ObjectMeta>\n") && !said.contains("-required-"), "{said}");
        k.gadgets().await;
        let said = k.ok(&format!("explain gadgets --api-version={}/v1", k.server.group)).await;
        assert!(said.contains("KIND:       Gadget\n") && said.contains("    A toy.\n"), "{said}");
        assert!(said.contains("spec\t<Object>\n    What is wanted.\n"), "{said}");
        let said = k.ok(&format!("explain gadgets.spec --api-version={}/v1", k.server.group)).await;
        assert!(
            said.contains("size\t<integer> -required-\n    How big.\n") && said.contains("colour\t<string>\n"),
            "{said}"
        );
        let said = k.ok("explain lease.spec --recursive").await;
        assert!(said.contains("  holderIdentity\t<string>\n"), "{said}");
        assert!(k.refused("explain configmap.nope").await.contains("field \"nope\" does not exist"));
    })
    .await;
}

#[tokio::test]
async fn get_prints_tables_and_objects() {
    with_kubectl(async |k| {
        k.ok("create configmap a --from-literal=x=1 --from-literal=y=2").await;
        k.ok("create configmap b --from-literal=x=1").await;
        k.ok("label configmap a team=red").await;
        let table = k.table("get configmaps a b").await;
        assert_eq!(table[0], ["NAME", "DATA", "AGE"]);
        assert_eq!(
            (&table[1][..2], &table[2][..2]),
            (&["a".to_owned(), "2".to_owned()][..], &["b".to_owned(), "1".to_owned()][..])
        );
        assert_eq!(k.table("get cm -l team=red --no-headers").await.len(), 1);
        assert_eq!(k.table("get cm a --show-labels").await[1][3], "team=red");
        assert_eq!(k.table("get cm -L team -l team").await[0], ["NAME", "DATA", "AGE", "TEAM"]);
        assert_eq!(k.ok("get cm --field-selector metadata.name=b -o name").await, "configmap/b\n");
        assert_eq!(k.ok("get cm a b -o name --chunk-size=1").await, "configmap/a\nconfigmap/b\n");
        assert_eq!(k.ok("get cm -l team -o jsonpath={.items[*].data.y}").await, "2");
        assert_eq!(k.ok("get cm a -o go-template={{.data.x}}").await, "1");
        let table = k.table("get cm a b -o custom-columns=N:.metadata.name,X:.data.y").await;
        assert_eq!(table, [["N", "X"], ["a", "2"], ["b", "<none>"]]);
        let yaml = k.ok("get cm a -o yaml").await;
        assert!(yaml.starts_with("apiVersion: v1\ndata:\n  x: \"1\"\n  \"y\": \"2\"\nkind: ConfigMap\n"), "{yaml}");
        assert!(!yaml.contains("managedFields"), "{yaml}");
        assert!(k.ok("get cm a -o yaml --show-managed-fields").await.contains("manager: kubectl-create"));
        let list = k.ok("get cm a b -o json").await;
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        assert_eq!((&list["kind"], &list["items"][1]["kind"]), (&json!("List"), &json!("ConfigMap")));
        assert_eq!(k.table("get service -o wide").await, Vec::<Vec<String>>::new());
        k.ok("create service externalname s --external-name=a.example").await;
        let table = k.table("get service s -o wide").await;
        assert_eq!(table[0], ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]);
        assert_eq!(table[1][..5], ["s", "ExternalName", "<none>", "a.example", "<none>"]);
        assert_eq!(k.refused("get cm nope").await, "Error from server (NotFound): configmaps \"nope\" not found");
        assert_eq!(k.refused("get nope").await, "error: the server doesn't have a resource type \"nope\"");
    })
    .await;
}

#[tokio::test]
async fn a_watch_prints_changes_as_they_come() {
    with_kubectl(async |k| {
        let mut child = k.command("get secrets -w --output-watch-events").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        k.ok("create secret generic s --from-literal=a=1").await;
        k.ok(r#"patch secret s -p {"stringData":{"b":"2"}}"#).await;
        k.ok("delete secret s").await;
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let line = tokio::time::timeout(std::time::Duration::from_secs(30), lines.next_line()).await;
            let line = line.expect("a line in time").unwrap().expect("another line");
            seen.push(line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
        }
        assert_eq!(seen, ["EVENT NAME TYPE DATA", "ADDED s Opaque 1", "MODIFIED s Opaque 2", "DELETED s Opaque 2"]);
        child.kill().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn questions_about_oneself_are_answered() {
    with_kubectl(async |k| {
        assert_eq!(k.ok("auth can-i delete secrets").await, "yes\n");
        assert_eq!(k.ok("auth can-i get /metrics").await, "yes\n");
        let who = k.table("auth whoami").await;
        assert_eq!(who[0], ["ATTRIBUTE", "VALUE"]);
        let me = k.server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
        assert_eq!(who[1], ["Username", me["status"]["userInfo"]["username"].as_str().unwrap()]);
        assert!(k.table("auth can-i --list").await.iter().any(|row| row[..] == ["*.*", "[]", "[]", "[*]"]));
        assert_eq!(k.ok("get --raw /readyz").await, "ok");
        assert!(k.ok("version").await.contains("Server Version: v1."));
        assert!(k.ok("api-versions").await.contains("networking.k8s.io/v1\n"));
        let resources = k.table("api-resources --api-group=coordination.k8s.io").await;
        assert_eq!(resources.last().unwrap()[..], ["leases", "coordination.k8s.io/v1", "true", "Lease"]);
        let verbs = k.ok("api-resources --api-group=coordination.k8s.io -o wide").await;
        assert!(verbs.contains("create,delete,deletecollection,get,list,patch,update,watch"), "{verbs}");
    })
    .await;
}

#[tokio::test]
async fn objects_are_made_by_words_alone() {
    with_kubectl(async |k| {
        assert_eq!(k.ok("create secret generic s --from-literal=token=abc").await, "secret/s created\n");
        assert_eq!(k.ok("get secret s -o jsonpath={.data.token}/{.type}").await, "YWJj/Opaque");
        k.ok("create secret docker-registry d --docker-username=u --docker-password=p").await;
        assert_eq!(k.ok("get secret d -o jsonpath={.type}").await, "kubernetes.io/dockerconfigjson");
        k.file("key.txt", "content\n");
        k.ok("create configmap f --from-file=key.txt").await;
        assert_eq!(k.ok("get cm f -o jsonpath={.data.key\\.txt}").await, "content\n");
        let namespace = format!("{}-more", k.server.namespace);
        assert_eq!(k.ok(&format!("create namespace {namespace}")).await, format!("namespace/{namespace} created\n"));
        assert_eq!(k.table(&format!("get namespace {namespace} --no-headers")).await[0][1], "Active");
        k.ok(&format!("delete namespace {namespace} --wait=false")).await;
        assert_eq!(k.ok("create serviceaccount robot").await, "serviceaccount/robot created\n");
        let ingress = "create ingress web --class=nginx --rule=shop.example/*=shop:80,tls=cert --default-backend=other:http";
        assert_eq!(k.ok(ingress).await, "ingress.networking.k8s.io/web created\n");
        let path = k.ok("get ingress web -o jsonpath={.spec.rules[0].http.paths[0]}").await;
        assert_eq!(path, r#"{"backend":{"service":{"name":"shop","port":{"number":80}}},"path":"/","pathType":"Prefix"}"#);
        let rest = k.ok("get ingress web -o jsonpath={.spec.tls}{.spec.defaultBackend}{.spec.ingressClassName}").await;
        assert_eq!(rest, r#"[{"hosts":["shop.example"],"secretName":"cert"}]{"service":{"name":"other","port":{"name":"http"}}}nginx"#);
        assert!(k.refused("create secret generic s").await.contains("secrets \"s\" already exists"));
        k.file("g.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: made-}\n");
        let made = k.ok("create -f g.yaml -o name").await;
        assert!(made.starts_with("configmap/made-") && made.trim().len() == "configmap/made-".len() + 5, "{made}");
        assert_eq!(k.ok("create configmap dry --dry-run=server -o name").await, "configmap/dry\n");
        assert!(k.refused("get cm dry").await.contains("NotFound"));
    })
    .await;
}

#[tokio::test]
async fn deletions_wait_select_and_may_be_idle() {
    with_kubectl(async |k| {
        for name in ["a", "b", "c"] {
            k.ok(&format!("create configmap {name}")).await;
        }
        k.ok("label cm b c kill=me").await;
        let words = k.ok("delete cm -l kill=me").await;
        assert!(words.starts_with("configmap \"b\" deleted") && words.lines().count() == 2, "{words}");
        assert_eq!(k.refused("delete cm b").await, "Error from server (NotFound): configmaps \"b\" not found");
        assert_eq!(k.ok("delete cm b --ignore-not-found").await, "");
        // what a finalizer holds stays, and goes with it
        k.ok(r#"patch cm a -p {"metadata":{"finalizers":["parity.example/hold"]}}"#).await;
        k.ok("delete cm a --wait=false").await;
        assert_ne!(k.ok("get cm a -o jsonpath={.metadata.deletionTimestamp}").await, "");
        let refused = k.refused("delete cm a --timeout=1s").await;
        assert!(refused.contains("timed out waiting for the condition"), "{refused}");
        k.ok(r#"patch cm a --type=merge -p {"metadata":{"finalizers":null}}"#).await;
        assert!(k.refused("get cm a").await.contains("NotFound"));
        // an owner may leave what it owns
        k.ok("create configmap owner").await;
        let uid = k.ok("get cm owner -o jsonpath={.metadata.uid}").await;
        k.file("own.yaml", &format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences:\n  - {{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}\n"));
        k.ok("create -f own.yaml").await;
        k.ok("delete cm owner --cascade=orphan").await;
        assert_eq!(k.ok("get cm owned -o jsonpath={.metadata.ownerReferences}").await, "");
    })
    .await;
}

#[tokio::test]
async fn mistakes_are_explained() {
    with_kubectl(async |k| {
        k.file("bad.yaml", &format!("{MAP}dato: {{a: b}}\n"));
        let refused = k.refused("apply -f bad.yaml").await;
        assert!(refused.ends_with("strict decoding error: unknown field \"dato\""), "{refused}");
        let output = k.run("apply -f bad.yaml --validate=warn").await;
        assert_eq!(text(&output.stderr), "Warning: unknown field \"dato\"\n");
        k.file("bad.yaml", &MAP.replace("name: m", "name: Bad_Name"));
        let refused = k.refused("apply -f bad.yaml").await;
        let words = "The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of";
        assert!(refused.starts_with(words), "{refused}");
        k.gadgets().await;
        k.file("bad.yaml", &k.gadget("{}"));
        let refused = k.refused("create -f bad.yaml").await;
        assert_eq!(refused, "The Gadget \"toy\" is invalid: spec.size: Required value");
        k.file("bad.yaml", &k.gadget("{size: big}"));
        let refused = k.refused("create -f bad.yaml").await;
        let words = "The Gadget \"toy\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"";
        assert_eq!(refused, words);
    })
    .await;
}

#[tokio::test]
async fn describe_and_events_tell_the_story() {
    with_kubectl(async |k| {
        k.ok("create configmap m --from-literal=a=words").await;
        let uid = k.ok("get cm m -o jsonpath={.metadata.uid}").await;
        let event = json!({
            "metadata": {"name": "m.1"}, "reason": "Seen", "note": "it was seen", "type": "Warning", "action": "Look",
            "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "namespace": k.server.namespace, "uid": uid},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "parity", "reportingInstance": "parity-1",
        });
        k.server.post(&k.server.path("apis/events.k8s.io/v1", "events"), &event).await.expect(201);
        let said = k.ok("describe cm m").await;
        for words in ["Name:         m\n", "Data\n====\na:\n----\nwords\n", "Warning  Seen", "parity", "it was seen"] {
            assert!(said.contains(words), "{}: {said}", k.about(words));
        }
        let row = k.table("get events --no-headers --field-selector involvedObject.name=m").await.remove(0);
        assert_eq!(row[1..], ["Warning", "Seen", "configmap/m", "it", "was", "seen"]);
        let row = k.table("events --for=configmap/m --no-headers").await.remove(0);
        assert_eq!(row[1..5], ["Warning", "Seen", "ConfigMap/m", "it"]);
        k.ok("create secret generic s --from-literal=token=abc").await;
        let said = k.ok("describe secret s").await;
        assert!(said.contains("Type:  Opaque\n") && said.contains("token:  3 bytes\n"), "{said}");
        let said = k.ok(&format!("describe namespace {}", k.server.namespace)).await;
        assert!(said.contains("Status:       Active\n"), "{said}");
    })
    .await;
}
