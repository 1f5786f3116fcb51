//! What kubectl writes: apply in both ways, diff, edit, labels, patches, and waiting for what comes of it.
use std::process::Stdio;

use serde_json::json;

use super::{MAP, with_kubectl};
use crate::process::text;

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
