//! Namespaces: made with a label and a finalizer, emptied before they go.
use serde_json::{Value, json};

use super::{Server, on_each_server};

/// The path of another namespace of the scenario.
async fn given_namespace(server: &Server) -> (String, String) {
    let name = format!("{}-other", server.namespace);
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.expect(201);
    (format!("/api/v1/namespaces/{name}"), name)
}

#[tokio::test]
async fn a_namespace_is_labelled_with_its_name_and_active() {
    on_each_server(async |server| {
        let path = format!("/api/v1/namespaces/{}", server.namespace);
        let found = server.get(&path).await.expect(200);
        assert_eq!(found["metadata"]["labels"], json!({"kubernetes.io/metadata.name": server.namespace}));
        assert_eq!(
            (&found["spec"], &found["status"]),
            (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"}))
        );
        // the label and the finalizer stay whatever is written
        let after =
            server.put(&path, &json!({"metadata": {"name": server.namespace, "labels": {"a": "b"}}})).await.expect(200);
        assert_eq!(after["metadata"]["labels"], json!({"a": "b", "kubernetes.io/metadata.name": server.namespace}));
        assert_eq!(after["spec"], json!({"finalizers": ["kubernetes"]}));
        let after = server.merge(&path, &json!({"spec": {"finalizers": []}})).await.expect(200);
        assert_eq!(after["spec"], json!({"finalizers": ["kubernetes"]}));
    })
    .await;
}

#[tokio::test]
async fn a_namespace_is_a_dns_label() {
    on_each_server(async |server| {
        let (_, message) = server.post("/api/v1/namespaces", &json!({"metadata": {"name": "a.b"}})).await.refused(422);
        assert_eq!(
            message,
            "Namespace \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain dots"
        );
    })
    .await;
}

#[tokio::test]
async fn the_phase_of_a_namespace_follows_its_deletion_only() {
    on_each_server(async |server| {
        let path = format!("/api/v1/namespaces/{}/status", server.namespace);
        let (_, message) = server.merge(&path, &json!({"status": {"phase": "Terminating"}})).await.refused(422);
        let words =
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty";
        assert_eq!(message, format!("Namespace \"{}\" is invalid: {words}", server.namespace));
    })
    .await;
}

#[tokio::test]
async fn some_namespaces_stay() {
    on_each_server(async |server| {
        for name in ["default", "kube-system"] {
            let (reason, message) =
                server.delete(&format!("/api/v1/namespaces/{name}"), &Value::Null).await.refused(403);
            assert_eq!(reason, "Forbidden");
            assert_eq!(message, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    on_each_server(async |server| {
        let (path, _) = given_namespace(server).await;
        server.post(&format!("{path}/configmaps"), &json!({"metadata": {"name": "a"}})).await.expect(201);
        server.post(&format!("{path}/secrets"), &json!({"metadata": {"name": "b"}})).await.expect(201);
        let going = server.delete(&path, &json!({})).await.expect(200);
        assert_eq!((&going["kind"], &going["status"]["phase"]), (&json!("Namespace"), &json!("Terminating")));
        assert!(going["metadata"]["deletionTimestamp"].is_string());
        server.until("the namespace is gone", async || server.get(&path).await.status == 404).await;
        assert_eq!(server.get(&format!("{path}/configmaps/a")).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_dying_namespace_takes_nothing_new_and_says_what_it_waits_for() {
    on_each_server(async |server| {
        let (path, name) = given_namespace(server).await;
        let held = json!({"metadata": {"name": "x", "finalizers": ["a.b/c"]}});
        server.post(&format!("{path}/configmaps"), &held).await.expect(201);
        server.delete(&path, &json!({})).await.expect(200);
        let refused = server.post(&format!("{path}/configmaps"), &json!({"metadata": {"name": "y"}})).await.expect(403);
        let words = format!("unable to create new content in namespace {name} because it is being terminated");
        assert_eq!(refused["message"], format!("configmaps \"y\" is forbidden: {words}"));
        assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
        let conditions = async || server.get(&path).await.body["status"]["conditions"].clone();
        let condition = async |kind: &str| {
            let all = conditions().await;
            all.as_array()
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == kind)
                .cloned()
                .unwrap_or_default()
        };
        server.until("it waits", async || condition("NamespaceFinalizersRemaining").await["status"] == "True").await;
        let waits = condition("NamespaceFinalizersRemaining").await;
        assert_eq!(waits["reason"], "SomeFinalizersRemain");
        assert_eq!(
            waits["message"],
            "Some content in the namespace has finalizers remaining: a.b/c in 1 resource instances"
        );
        let remains = condition("NamespaceContentRemaining").await;
        assert_eq!(remains["message"], "Some resources are remaining: configmaps. has 1 resource instances");
        assert_eq!(condition("NamespaceDeletionContentFailure").await["status"], "False");
        server.merge(&format!("{path}/configmaps/x"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        server.until("the namespace is gone", async || server.get(&path).await.status == 404).await;
    })
    .await;
}

#[tokio::test]
async fn a_namespace_is_held_by_whoever_says_so_at_its_finalize_path() {
    on_each_server(async |server| {
        let (path, name) = given_namespace(server).await;
        let body = json!({"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes", "a.b/c"]}});
        let held = server.put(&format!("{path}/finalize"), &body).await.expect(200);
        assert_eq!(held["spec"]["finalizers"], json!(["kubernetes", "a.b/c"]));
        assert_eq!(server.get(&format!("{path}/finalize")).await.status, 405);
        server.delete(&path, &json!({})).await.expect(200);
        server
            .until("its contents are gone", async || {
                server.get(&path).await.body["spec"]["finalizers"] == json!(["a.b/c"])
            })
            .await;
        let let_go =
            server.put(&format!("{path}/finalize"), &json!({"metadata": {"name": name}, "spec": {}})).await.expect(200);
        assert_eq!(let_go["spec"], json!({}));
        assert_eq!(server.get(&path).await.status, 404);
    })
    .await;
}
