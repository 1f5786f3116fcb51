//! Deletions: finalizers, preconditions, and what becomes of what is owned.
use serde_json::{Value, json};

use super::{Server, on_each_server};

async fn given_map(server: &Server, name: &str, metadata: Value) -> Value {
    let mut body = json!({"metadata": metadata});
    body["metadata"]["name"] = json!(name);
    server.post(&server.config_maps(), &body).await.expect(201)
}

fn owner(of: &Value, blocks: bool) -> Value {
    json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": of["metadata"]["name"], "uid": of["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }])
}

async fn is_gone(server: &Server, name: &str) -> bool {
    server.get(&format!("{}/{name}", server.config_maps())).await.status == 404
}

#[tokio::test]
async fn a_deleted_object_is_gone_at_once_and_its_uid_is_answered() {
    on_each_server(async |server| {
        let made = given_map(server, "a", json!({})).await;
        let path = format!("{}/a", server.config_maps());
        let answer = server.delete(&path, &json!({})).await.expect(200);
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]},
        });
        assert_eq!(answer, expected);
        assert_eq!(server.delete(&path, &Value::Null).await.refused(404).1, "configmaps \"a\" not found");
    })
    .await;
}

#[tokio::test]
async fn an_object_with_finalizers_stays_until_the_last_is_off() {
    on_each_server(async |server| {
        given_map(server, "f", json!({"finalizers": ["a.b/c", "a.b/d"]})).await;
        let path = format!("{}/f", server.config_maps());
        // when it is deleted, it is marked
        let marked = server.delete(&path, &json!({})).await.expect(200);
        assert_eq!(
            (&marked["kind"], &marked["metadata"]["deletionGracePeriodSeconds"]),
            (&json!("ConfigMap"), &json!(0))
        );
        let since = marked["metadata"]["deletionTimestamp"].clone();
        assert!(since.is_string());
        // deleting it again changes nothing
        let again = server.delete(&path, &json!({})).await.expect(200);
        assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
        // other changes are still taken
        let changed =
            server.merge(&path, &json!({"data": {"a": "1"}, "metadata": {"finalizers": ["a.b/c"]}})).await.expect(200);
        assert_eq!((&changed["data"]["a"], &changed["metadata"]["deletionTimestamp"]), (&json!("1"), &since));
        // when the last finalizer goes, so does the object; what was written is answered
        let last =
            server.merge(&path, &json!({"metadata": {"finalizers": null}, "data": {"a": "2"}})).await.expect(200);
        assert_eq!((&last["data"]["a"], &last["metadata"]["finalizers"]), (&json!("2"), &Value::Null));
        assert_eq!(last["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
        assert!(is_gone(server, "f").await);
    })
    .await;
}

#[tokio::test]
async fn a_dying_object_takes_no_new_finalizer_and_is_not_revived() {
    on_each_server(async |server| {
        given_map(server, "f", json!({"finalizers": ["a.b/c"]})).await;
        let path = format!("{}/f", server.config_maps());
        server.delete(&path, &json!({})).await.expect(200);
        let (_, message) = server.merge(&path, &json!({"metadata": {"finalizers": ["a.b/c", "a.b/e"]}})).await.refused(422);
        assert_eq!(
            message,
            "ConfigMap \"f\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
             found new finalizers []string{\"a.b/e\"}"
        );
        let after = server.merge(&path, &json!({"metadata": {"deletionTimestamp": null}})).await.expect(200);
        assert!(after["metadata"]["deletionTimestamp"].is_string());
        server.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn finalizers_are_qualified_names() {
    on_each_server(async |server| {
        let refused = async |finalizers: Value| {
            let body = json!({"metadata": {"name": "x", "finalizers": finalizers}});
            server.post(&server.config_maps(), &body).await.refused(422).1
        };
        assert_eq!(
            refused(json!(["a"])).await,
            "ConfigMap \"x\" is invalid: metadata.finalizers[0]: Invalid value: \"a\": name is neither a standard finalizer name nor is it \
             fully qualified"
        );
        assert_eq!(
            refused(json!(["orphan", "foregroundDeletion"])).await,
            "ConfigMap \"x\" is invalid: metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and \
             foregroundDeletion cannot be both set"
        );
    })
    .await;
}

#[tokio::test]
async fn a_deletion_may_be_meant_for_one_object_or_version_only() {
    on_each_server(async |server| {
        let made = given_map(server, "a", json!({})).await;
        let path = format!("{}/a", server.config_maps());
        let (uid, version) = (&made["metadata"]["uid"], &made["metadata"]["resourceVersion"]);
        let (reason, message) = server.delete(&path, &json!({"preconditions": {"uid": "x"}})).await.refused(409);
        assert_eq!(reason, "Conflict");
        assert_eq!(
            message,
            format!(
                "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (x) does not match the UID in record ({}). \
                 The object might have been deleted and then recreated",
                uid.as_str().unwrap()
            )
        );
        let (_, message) = server.delete(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await.refused(409);
        assert_eq!(
            message,
            format!(
                "Operation cannot be fulfilled on ConfigMap \"a\": the ResourceVersion in the precondition (1) does not match the \
                 ResourceVersion in record ({}). The object might have been modified",
                version.as_str().unwrap()
            )
        );
        server.delete(&path, &json!({"preconditions": {"uid": uid, "resourceVersion": version}})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_deletion_can_be_tried_out() {
    on_each_server(async |server| {
        given_map(server, "a", json!({})).await;
        given_map(server, "f", json!({"finalizers": ["a.b/c"]})).await;
        let maps = server.config_maps();
        assert_eq!(
            server.delete(&format!("{maps}/a"), &json!({"dryRun": ["All"]})).await.expect(200)["status"],
            "Success"
        );
        assert_eq!(server.delete(&format!("{maps}/a?dryRun=All"), &Value::Null).await.expect(200)["status"], "Success");
        assert!(!is_gone(server, "a").await);
        let marked = server.delete(&format!("{maps}/f?dryRun=All"), &Value::Null).await.expect(200);
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
        let kept = server.get(&format!("{maps}/f")).await.expect(200);
        assert_eq!(kept["metadata"]["deletionTimestamp"], Value::Null);
        // the last finalizer of a dying object can be taken off on trial, too
        server.delete(&format!("{maps}/f"), &json!({})).await.expect(200);
        server.merge(&format!("{maps}/f?dryRun=All"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        assert!(!is_gone(server, "f").await);
        server.merge(&format!("{maps}/f"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_is_owned_goes_after_its_owner() {
    on_each_server(async |server| {
        let first = given_map(server, "owner", json!({})).await;
        let child = given_map(server, "child", json!({"ownerReferences": owner(&first, false)})).await;
        given_map(server, "grandchild", json!({"ownerReferences": owner(&child, false)})).await;
        server
            .delete(&format!("{}/owner", server.config_maps()), &json!({"propagationPolicy": "Background"}))
            .await
            .expect(200);
        assert!(is_gone(server, "owner").await);
        server.until("the grandchild is gone", async || is_gone(server, "grandchild").await).await;
        assert!(is_gone(server, "child").await);
    })
    .await;
}

#[tokio::test]
async fn what_has_another_owner_stays() {
    on_each_server(async |server| {
        let (a, b) = (given_map(server, "a", json!({})).await, given_map(server, "b", json!({})).await);
        let mut owners = owner(&a, false);
        owners.as_array_mut().unwrap().push(owner(&b, false)[0].clone());
        given_map(server, "child", json!({"ownerReferences": owners})).await;
        let marker = given_map(server, "marker", json!({})).await;
        given_map(server, "marked", json!({"ownerReferences": owner(&marker, false)})).await;
        server.delete(&format!("{}/a", server.config_maps()), &json!({})).await.expect(200);
        // once a later deletion has been followed, this one has been as well
        server.delete(&format!("{}/marker", server.config_maps()), &json!({})).await.expect(200);
        server.until("the marked one is gone", async || is_gone(server, "marked").await).await;
        assert!(!is_gone(server, "child").await);
        server.delete(&format!("{}/b", server.config_maps()), &json!({})).await.expect(200);
        server.until("the child is gone", async || is_gone(server, "child").await).await;
    })
    .await;
}

#[tokio::test]
async fn an_owner_can_wait_for_what_it_owns() {
    on_each_server(async |server| {
        let first = given_map(server, "owner", json!({})).await;
        given_map(server, "child", json!({"ownerReferences": owner(&first, true), "finalizers": ["a.b/c"]})).await;
        let maps = server.config_maps();
        let waiting =
            server.delete(&format!("{maps}/owner"), &json!({"propagationPolicy": "Foreground"})).await.expect(200);
        assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        let child = async || server.get(&format!("{maps}/child")).await.body;
        server.until("the child is dying", async || !child().await["metadata"]["deletionTimestamp"].is_null()).await;
        assert!(!is_gone(server, "owner").await, "it waits");
        server.merge(&format!("{maps}/child"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        server.until("the owner is gone", async || is_gone(server, "owner").await).await;
    })
    .await;
}

#[tokio::test]
async fn an_owner_can_let_go_of_what_it_owns() {
    on_each_server(async |server| {
        let first = given_map(server, "owner", json!({})).await;
        given_map(server, "child", json!({"ownerReferences": owner(&first, false)})).await;
        let maps = server.config_maps();
        let going = server.delete(&format!("{maps}/owner"), &json!({"propagationPolicy": "Orphan"})).await.expect(200);
        assert_eq!(going["metadata"]["finalizers"], json!(["orphan"]));
        server.until("the owner is gone", async || is_gone(server, "owner").await).await;
        let child = server.get(&format!("{maps}/child")).await.expect(200);
        assert_eq!(child["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(child["metadata"]["deletionTimestamp"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn the_body_of_a_deletion_wins_over_its_query() {
    on_each_server(async |server| {
        given_map(server, "a", json!({"finalizers": ["a.b/c"]})).await;
        let path = format!("{}/a", server.config_maps());
        let answer = server
            .delete(&format!("{path}?propagationPolicy=Foreground"), &json!({"propagationPolicy": "Background"}))
            .await;
        assert_eq!(answer.expect(200)["metadata"]["finalizers"], json!(["a.b/c"]));
        let answer = server.delete(&format!("{path}?propagationPolicy=Orphan"), &Value::Null).await.expect(200);
        assert_eq!(answer["metadata"]["finalizers"], json!(["a.b/c", "orphan"]));
        server.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
        server.until("it is gone", async || is_gone(server, "a").await).await;
    })
    .await;
}

#[tokio::test]
async fn a_collection_is_deleted_as_it_is_listed() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        for (name, label) in [("a", "1"), ("b", "1"), ("c", "2")] {
            given_map(server, name, json!({"labels": {"q": label}})).await;
        }
        let tried = server.delete(&format!("{maps}?labelSelector=q&dryRun=All"), &Value::Null).await.expect(200);
        assert_eq!(tried["items"].as_array().unwrap().len(), 3);
        let deleted = server.delete(&format!("{maps}?labelSelector=q%3D1"), &Value::Null).await.expect(200);
        assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 2));
        let left = server.get(&format!("{maps}?labelSelector=q")).await.expect(200);
        let names: Vec<&Value> =
            left["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        assert_eq!(names, ["c"]);
        // one page of it
        given_map(server, "d", json!({"labels": {"q": "2"}})).await;
        let deleted = server.delete(&format!("{maps}?labelSelector=q&limit=1"), &Value::Null).await.expect(200);
        assert_eq!(deleted["items"].as_array().unwrap().len(), 1);
        assert!(is_gone(server, "c").await && !is_gone(server, "d").await);
    })
    .await;
}

#[tokio::test]
async fn collections_are_deleted_within_one_namespace_only() {
    on_each_server(async |server| {
        for path in ["/api/v1/namespaces", "/api/v1/configmaps"] {
            let (reason, message) = server.delete(path, &Value::Null).await.refused(405);
            assert_eq!(reason, "MethodNotAllowed");
            assert_eq!(message, "the server does not allow this method on the requested resource");
        }
    })
    .await;
}

#[tokio::test]
async fn an_object_of_the_cluster_is_not_collected_for_an_owner_in_a_namespace() {
    on_each_server(async |server| {
        let own = format!("{}-owned", server.namespace);
        let path = format!("/api/v1/namespaces/{own}");
        let map = given_map(server, "owner", json!({})).await;
        server
            .post("/api/v1/namespaces", &json!({"metadata": {"name": own, "ownerReferences": owner(&map, true)}}))
            .await
            .expect(201);
        server.post(&format!("{path}/configmaps"), &json!({"metadata": {"name": "kept"}})).await.expect(201);
        // when its owner goes, and another one of the same kind with what it owns
        let other = given_map(server, "other", json!({})).await;
        given_map(server, "goes", json!({"ownerReferences": owner(&other, false)})).await;
        for name in ["owner", "other"] {
            server.delete(&format!("{}/{name}", server.config_maps()), &json!({})).await.expect(200);
        }
        server.until("goes is gone", async || is_gone(server, "goes").await).await;
        // then it is told about, and stays with its contents
        let events = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={own}");
        server
            .until("a warning", async || {
                let events = server.get(&events).await.body["items"].as_array().cloned().unwrap_or_default();
                events.iter().any(|event| event["reason"] == "OwnerRefInvalidNamespace" && event["type"] == "Warning")
            })
            .await;
        assert_eq!(server.get(&path).await.expect(200)["status"]["phase"], "Active");
        server.get(&format!("{path}/configmaps/kept")).await.expect(200);
        server.delete(&path, &Value::Null).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn objects_that_own_each_other_can_be_deleted_in_the_foreground() {
    on_each_server(async |server| {
        let (first, second) = (given_map(server, "a", json!({})).await, given_map(server, "b", json!({})).await);
        for (name, of) in [("a", &second), ("b", &first)] {
            let references = json!({"metadata": {"ownerReferences": owner(of, true)}});
            server.merge(&format!("{}/{name}", server.config_maps()), &references).await.expect(200);
        }
        let path = format!("{}/a", server.config_maps());
        server.delete(&path, &json!({"propagationPolicy": "Foreground"})).await.expect(200);
        server.until("both are gone", async || is_gone(server, "a").await && is_gone(server, "b").await).await;
    })
    .await;
}

#[tokio::test]
async fn the_reference_to_an_owner_that_is_gone_goes_where_another_stays() {
    on_each_server(async |server| {
        for policy in ["Background", "Foreground"] {
            let first = given_map(server, &format!("first-{}", policy.to_lowercase()), json!({})).await;
            let second = given_map(server, &format!("second-{}", policy.to_lowercase()), json!({})).await;
            let mut references = owner(&first, true);
            references.as_array_mut().unwrap().push(owner(&second, true)[0].clone());
            let name = format!("shared-{}", policy.to_lowercase());
            given_map(server, &name, json!({"ownerReferences": references})).await;
            let gone = first["metadata"]["name"].as_str().unwrap();
            let path = format!("{}/{gone}", server.config_maps());
            server.delete(&path, &json!({"propagationPolicy": policy})).await.expect(200);
            server
                .until("one reference is left", async || {
                    let path = format!("{}/{name}", server.config_maps());
                    let left = server.get(&path).await.expect(200)["metadata"]["ownerReferences"].clone();
                    left.as_array().is_some_and(|left| left.len() == 1 && left[0]["uid"] == second["metadata"]["uid"])
                })
                .await;
            server.until("the owner is gone", async || is_gone(server, gone).await).await;
        }
    })
    .await;
}
