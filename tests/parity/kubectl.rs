//! Unmodified kubectl, the oldest supported and the newest, as a person types it.
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
async fn apply_makes_keeps_and_changes() {
    with_kubectl(async |k| {
        k.file("m.yaml", &format!("{MAP}data: {{a: '1', b: '2'}}\n"));
        assert_eq!(k.ok("apply -f m.yaml").await, "configmap/m created\n");
        assert_eq!(k.ok("apply -f m.yaml").await, "configmap/m unchanged\n");
        assert!(k.ok("apply view-last-applied cm m").await.contains("b: \"2\""));
        k.file("m.yaml", &format!("{MAP}data: {{b: '3'}}\n"));
        assert_eq!(k.ok("apply -f m.yaml --dry-run=server").await, "configmap/m configured (server dry run)\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"a":"1","b":"2"}"#);
        assert_eq!(k.ok("apply -f m.yaml").await, "configmap/m configured\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"b":"3"}"#);
        k.gadgets().await;
        let toy = format!("gadget.{}/toy", k.server.group);
        k.file("toy.yaml", &k.gadget("{size: 1, colour: red}"));
        assert_eq!(k.ok("apply -f toy.yaml").await, format!("{toy} created\n"));
        assert_eq!(k.ok("apply -f toy.yaml").await, format!("{toy} unchanged\n"));
        k.file("toy.yaml", &k.gadget("{size: 2}"));
        assert_eq!(k.ok("apply -f toy.yaml").await, format!("{toy} configured\n"));
        assert_eq!(k.ok(&format!("get {} toy -o jsonpath={{.spec}}", k.gadget_name())).await, r#"{"size":2}"#);
    })
    .await;
}

#[tokio::test]
async fn apply_prunes_what_is_no_longer_there() {
    with_kubectl(async |k| {
        let map = |name: &str| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{app: p}}}}\n---\n")
        };
        k.file("all.yaml", &[map("a"), map("b")].concat());
        let prune = "apply -f all.yaml --prune -l app=p --prune-allowlist=core/v1/ConfigMap";
        k.ok(prune).await;
        k.file("all.yaml", &map("a"));
        assert_eq!(k.ok(prune).await, "configmap/a unchanged\nconfigmap/b pruned\n");
        assert_eq!(k.ok("get cm -l app=p -o name").await, "configmap/a\n");
    })
    .await;
}

#[tokio::test]
async fn server_side_apply_knows_owners_and_conflicts() {
    with_kubectl(async |k| {
        k.file("m.yaml", &format!("{MAP}data: {{a: '1', b: '2'}}\n"));
        let applied = "configmap/m serverside-applied\n";
        assert_eq!(k.ok("apply --server-side -f m.yaml").await, applied);
        assert_eq!(k.ok("apply --server-side -f m.yaml").await, applied);
        k.ok(r#"patch cm m --type=merge --field-manager=other -p {"data":{"a":"9"}}"#).await;
        let conflict = k.refused("apply --server-side -f m.yaml").await;
        assert!(conflict.starts_with("error: Apply failed with 1 conflict: conflict with \"other\" using v1: .data.a\n"), "{conflict}");
        assert!(conflict.contains("Please review the fields above"), "{conflict}");
        k.file("m.yaml", &format!("{MAP}data: {{a: '1', b: '2', c: '3'}}\n"));
        k.ok(r#"patch cm m --type=merge --field-manager=third -p {"data":{"b":"9"}}"#).await;
        let conflict = k.refused("apply --server-side -f m.yaml").await;
        let words = "error: Apply failed with 2 conflicts: conflicts with \"other\" using v1:\n- .data.a\nconflicts with \"third\" using v1:\n- .data.b\n";
        assert!(conflict.starts_with(words), "{conflict}");
        assert_eq!(k.ok("apply --server-side --force-conflicts -f m.yaml").await, applied);
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"a":"1","b":"2","c":"3"}"#);
        // what is no longer applied by anybody goes
        k.file("m.yaml", &format!("{MAP}data: {{a: '1'}}\n"));
        assert_eq!(k.ok("apply --server-side -f m.yaml").await, applied);
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"a":"1"}"#);
        k.ok("apply --server-side --field-manager=second -f m.yaml").await;
        let managers = k.ok("get cm m --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
        let mut managers: Vec<&str> = managers.split(' ').collect();
        managers.sort_unstable();
        assert_eq!(managers, ["kubectl", "second"], "{}", k.about("managers"));
    })
    .await;
}

#[tokio::test]
async fn client_side_apply_can_become_server_side() {
    with_kubectl(async |k| {
        k.file("m.yaml", &format!("{MAP}data: {{a: '1', b: '2'}}\n"));
        k.ok("apply -f m.yaml").await;
        k.file("m.yaml", &format!("{MAP}data: {{b: '2'}}\n"));
        assert_eq!(k.ok("apply --server-side -f m.yaml").await, "configmap/m serverside-applied\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"b":"2"}"#);
        let managers = k.ok("get cm m --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
        assert!(managers.starts_with("kubectl"), "{managers}");
    })
    .await;
}

#[tokio::test]
async fn diff_shows_what_apply_would_change() {
    with_kubectl(async |k| {
        k.file("m.yaml", &format!("{MAP}data: {{a: '1'}}\n"));
        let output = k.run("diff -f m.yaml").await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("+kind: ConfigMap\n"), "{}", text(&output.stdout));
        k.ok("apply -f m.yaml").await;
        assert_eq!(k.ok("diff -f m.yaml").await, "");
        k.file("m.yaml", &format!("{MAP}data: {{a: '2'}}\n"));
        for way in ["diff -f m.yaml", "diff --server-side --force-conflicts -f m.yaml"] {
            let output = k.run(way).await;
            let shown = text(&output.stdout);
            assert_eq!(output.status.code(), Some(1), "{}: {}", k.about(way), text(&output.stderr));
            assert!(shown.contains("-  a: \"1\"\n+  a: \"2\"\n"), "{}: {shown}", k.about(way));
        }
        assert_eq!(k.ok("get cm m -o jsonpath={.data.a}").await, "1");
    })
    .await;
}

#[tokio::test]
async fn edit_writes_back_what_the_editor_left() {
    with_kubectl(async |k| {
        k.ok("create configmap m --from-literal=a=before").await;
        let output = k.command("edit cm m").env("KUBE_EDITOR", "sed -i s/before/after/").output().await.unwrap();
        assert_eq!(text(&output.stdout), "configmap/m edited\n", "{}", text(&output.stderr));
        assert_eq!(k.ok("get cm m -o jsonpath={.data.a}").await, "after");
        let output = k.command("edit cm m").env("KUBE_EDITOR", "true").output().await.unwrap();
        assert!(text(&output.stderr).contains("Edit cancelled, no changes made."), "{}", text(&output.stderr));
        k.gadgets().await;
        k.file("toy.yaml", &k.gadget("{size: 1}"));
        k.ok("create -f toy.yaml").await;
        let words = format!("edit {} toy", k.gadget_name());
        let output = k.command(&words).env("KUBE_EDITOR", "sed -i s/size:.1/size:\\ 7/").output().await.unwrap();
        assert!(text(&output.stdout).ends_with("/toy edited\n"), "{}", text(&output.stderr));
        assert_eq!(k.ok(&format!("get {} toy -o jsonpath={{.spec.size}}", k.gadget_name())).await, "7");
    })
    .await;
}

#[tokio::test]
async fn labels_and_annotations_come_and_go() {
    with_kubectl(async |k| {
        k.ok("create configmap m").await;
        assert_eq!(k.ok("label cm m a=1 b=2").await, "configmap/m labeled\n");
        assert_eq!(k.ok("label cm m a=1").await, "configmap/m not labeled\n");
        assert!(k.refused("label cm m a=9").await.contains("'a' already has a value (1), and --overwrite is false"));
        assert_eq!(k.ok("label cm m a=9 --overwrite").await, "configmap/m labeled\n");
        assert_eq!(k.ok("label cm m b-").await, "configmap/m unlabeled\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.metadata.labels}").await, r#"{"a":"9"}"#);
        let refused = k.refused("label cm m x=no/value").await;
        assert!(
            refused.contains("a valid label must be an empty string or consist of alphanumeric characters"),
            "{refused}"
        );
        assert_eq!(k.ok("annotate cm m note=x").await, "configmap/m annotated\n");
        assert_eq!(k.ok("annotate cm m note-").await, "configmap/m annotated\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.metadata.annotations}").await, "");
    })
    .await;
}

#[tokio::test]
async fn patches_of_every_type_are_taken() {
    with_kubectl(async |k| {
        k.ok("create configmap m --from-literal=a=1").await;
        assert_eq!(k.ok(r#"patch cm m -p {"data":{"b":"2"}}"#).await, "configmap/m patched\n");
        assert_eq!(k.ok(r#"patch cm m -p {"data":{"b":"2"}}"#).await, "configmap/m patched (no change)\n");
        assert_eq!(k.ok(r#"patch cm m --type=merge -p {"data":{"a":null}}"#).await, "configmap/m patched\n");
        let add = r#"[{"op":"test","path":"/data/b","value":"2"},{"op":"add","path":"/data/c","value":"3"}]"#;
        assert_eq!(k.ok(&format!("patch cm m --type=json -p {add}")).await, "configmap/m patched\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"b":"2","c":"3"}"#);
        let fails = r#"patch cm m --type=json -p [{"op":"test","path":"/data/b","value":"9"}]"#;
        let refused = k.refused(fails).await;
        assert!(refused.starts_with("The request is invalid"), "{}: {refused}", k.about(fails));
        k.gadgets().await;
        let gadgets = k.gadget_name();
        k.file("toy.yaml", &k.gadget("{size: 1}"));
        k.ok("create -f toy.yaml").await;
        assert!(
            k.refused(&format!(r#"patch {gadgets} toy -p {{"spec":{{"size":2}}}}"#))
                .await
                .contains("application/merge-patch+json")
        );
        k.ok(&format!(r#"patch {gadgets} toy --type=merge -p {{"spec":{{"size":2}}}}"#)).await;
        k.ok(&format!(r#"patch {gadgets} toy --type=merge --subresource=status -p {{"status":{{"done":true}}}}"#))
            .await;
        assert_eq!(k.ok(&format!("get {gadgets} toy -o jsonpath={{.spec.size}}{{.status.done}}")).await, "2true");
    })
    .await;
}

#[tokio::test]
async fn replace_needs_the_current_version() {
    with_kubectl(async |k| {
        k.ok("create configmap m --from-literal=a=1").await;
        let old = k.ok("get cm m -o yaml").await;
        k.file("m.yaml", &old.replace("a: \"1\"", "a: \"2\""));
        assert_eq!(k.ok("replace -f m.yaml").await, "configmap/m replaced\n");
        let refused = k.refused("replace -f m.yaml").await;
        let words = "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again";
        assert!(refused.contains("(Conflict)") && refused.contains(words), "{refused}");
        k.file("m.yaml", &format!("{MAP}data: {{b: '3'}}\n"));
        k.ok("replace -f m.yaml").await;
        assert_eq!(k.ok("get cm m -o jsonpath={.data}").await, r#"{"b":"3"}"#);
        let forced = k.ok("replace --force -f m.yaml").await;
        assert!(forced.contains("configmap \"m\" deleted") && forced.ends_with("configmap/m replaced\n"), "{forced}");
        k.file("n.yaml", &MAP.replace("name: m", "name: none"));
        let refused = k.refused("replace -f n.yaml").await;
        assert!(refused.contains("configmaps \"none\" not found"), "{}: {refused}", k.about("replace"));
    })
    .await;
}

#[tokio::test]
async fn wait_returns_when_it_is_so() {
    with_kubectl(async |k| {
        let path = k.gadgets().await;
        let gadgets = k.gadget_name();
        k.file("toy.yaml", &k.gadget("{size: 1}"));
        k.ok("create -f toy.yaml").await;
        let ready = format!("wait {gadgets}/toy --for=condition=Ready --timeout=30s");
        let waiting = k.command(&ready).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Done"}});
        k.server.merge(&format!("{path}/toy/status"), &status).await.expect(200);
        let output = waiting.wait_with_output().await.unwrap();
        assert_eq!(
            text(&output.stdout),
            format!("gadget.{}/toy condition met\n", k.server.group),
            "{}",
            text(&output.stderr)
        );
        k.ok(&format!("wait {gadgets}/toy --for=jsonpath={{.status.phase}}=Done --timeout=30s")).await;
        let refused = k.refused(&format!("wait {gadgets}/toy --for=condition=Nope --timeout=1s")).await;
        assert!(refused.contains("timed out waiting for the condition"), "{refused}");
        let gone = format!("wait {gadgets}/toy --for=delete --timeout=30s");
        let waiting = k.command(&gone).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        k.server.delete(&format!("{path}/toy"), &json!({})).await.expect(200);
        assert!(waiting.wait_with_output().await.unwrap().status.success());
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
