//! Making, reading and replacing objects; what of their metadata clients can change.
use serde_json::{Value, json};

use super::on_each_server;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
                         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                         character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// An object without `managedFields`, which have scenarios of their own.
fn plain(mut object: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

#[tokio::test]
async fn a_made_object_has_what_was_sent_and_what_the_server_adds() {
    on_each_server(async |server| {
        let body = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": ""}});
        let made = plain(server.post(&server.config_maps(), &body).await.expect(201));
        let (uid, created) = (made["metadata"]["uid"].clone(), made["metadata"]["creationTimestamp"].clone());
        let version = made["metadata"]["resourceVersion"].clone();
        assert_eq!(uid.as_str().unwrap().len(), 36);
        assert!(created.as_str().unwrap().ends_with('Z') && created.as_str().unwrap().len() == 20, "{created}");
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": ""},
            "metadata": {
                "name": "a", "namespace": server.namespace, "labels": {"x": "y"}, "uid": uid,
                "creationTimestamp": created, "resourceVersion": version,
            },
        });
        assert_eq!(made, expected);
        assert_eq!(plain(server.get(&format!("{}/a", server.config_maps())).await.expect(200)), expected);
    })
    .await;
}

#[tokio::test]
async fn a_name_is_taken_once() {
    on_each_server(async |server| {
        let body = json!({"metadata": {"name": "a"}});
        server.post(&server.config_maps(), &body).await.expect(201);
        let refused = server.post(&server.config_maps(), &body).await.expect(409);
        assert_eq!(refused["message"], "configmaps \"a\" already exists");
        assert_eq!(refused["reason"], "AlreadyExists");
        assert_eq!((&refused["details"]["name"], &refused["details"]["kind"]), (&json!("a"), &json!("configmaps")));
    })
    .await;
}

#[tokio::test]
async fn names_are_made_from_a_beginning() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let body = json!({"metadata": {"generateName": "gen-"}});
        let (first, second) =
            (server.post(&maps, &body).await.expect(201), server.post(&maps, &body).await.expect(201));
        let name = first["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
        assert!(name[4..].bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)), "{name}");
        assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
        assert_eq!(first["metadata"]["generateName"], "gen-");
        // a name that is given wins, and a long beginning is cut
        let named = json!({"metadata": {"generateName": "gen-", "name": "given"}});
        assert_eq!(server.post(&maps, &named).await.expect(201)["metadata"]["name"], "given");
        let long = json!({"metadata": {"generateName": format!("{}-", "x".repeat(70))}});
        let made = server.post(&maps, &long).await.expect(201);
        assert_eq!(made["metadata"]["name"].as_str().unwrap().len(), 63);
    })
    .await;
}

#[tokio::test]
async fn a_bad_beginning_of_a_name_is_told_as_such() {
    on_each_server(async |server| {
        let body = json!({"metadata": {"generateName": "Bad_Name"}});
        let refused = server.post(&server.config_maps(), &body).await.expect(422);
        let causes = refused["details"]["causes"].as_array().unwrap();
        assert_eq!(causes[0]["field"], "metadata.generateName");
        assert_eq!(causes[0]["message"], format!("Invalid value: \"Bad_Name\": {SUBDOMAIN}"));
        assert_eq!((causes.len(), &causes[1]["field"]), (2, &json!("metadata.name")));
    })
    .await;
}

#[tokio::test]
async fn an_object_needs_a_name_that_is_one() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let (reason, message) = server.post(&maps, &json!({"metadata": {}})).await.refused(422);
        let words = "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
        assert_eq!((reason.as_str(), message.as_str()), ("Invalid", words));
        let (_, message) = server.post(&maps, &json!({"metadata": {"name": "Bad_Name"}})).await.refused(422);
        let words =
            format!("ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": {SUBDOMAIN}");
        assert_eq!(message, words);
    })
    .await;
}

#[tokio::test]
async fn every_fault_of_the_metadata_is_told_at_once() {
    on_each_server(async |server| {
        let body = json!({"metadata": {"name": "x", "labels": {"a b": "c d"}, "annotations": {"a b": "x"}}});
        let refused = server.post(&server.config_maps(), &body).await.expect(422);
        let causes: Vec<_> = refused["details"]["causes"].as_array().unwrap().iter().map(|c| c["message"].clone()).collect();
        let value = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                     with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        let key = json!(format!("Invalid value: \"a b\": {NAME_PART}"));
        assert_eq!(causes, [key.clone(), json!(format!("Invalid value: \"c d\": {value}")), key]);
        assert!(refused["message"].as_str().unwrap().starts_with("ConfigMap \"x\" is invalid: [metadata.labels: "));
    })
    .await;
}

#[tokio::test]
async fn what_a_server_sets_cannot_be_sent() {
    on_each_server(async |server| {
        let body = json!({"metadata": {
            "name": "b", "uid": "5", "creationTimestamp": "2020-01-01T00:00:00Z", "selfLink": "/x",
            "deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5,
        }});
        let made = server.post(&server.config_maps(), &body).await.expect(201);
        assert_ne!(made["metadata"]["uid"], "5");
        assert_ne!(made["metadata"]["creationTimestamp"], "2020-01-01T00:00:00Z");
        for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            assert_eq!(made["metadata"][field], Value::Null, "{field}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_object_has_no_version_yet() {
    on_each_server(async |server| {
        let body = json!({"metadata": {"name": "b", "resourceVersion": "5"}});
        let refused = server.post(&server.config_maps(), &body).await.expect(500);
        assert_eq!(refused["message"], "resourceVersion should not be set on objects to be created");
        assert_eq!((&refused["reason"], &refused["code"]), (&Value::Null, &json!(500)));
        server
            .post(&server.config_maps(), &json!({"metadata": {"name": "b", "resourceVersion": "0"}}))
            .await
            .expect(201);
    })
    .await;
}

#[tokio::test]
async fn an_object_belongs_to_the_namespace_of_its_path() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let words = "the namespace of the provided object does not match the namespace sent on the request";
        let other = json!({"metadata": {"name": "b", "namespace": "other"}});
        assert_eq!(server.post(&maps, &other).await.refused(400), ("BadRequest".to_owned(), words.to_owned()));
        server.post(&maps, &json!({"metadata": {"name": "b"}})).await.expect(201);
        let path = format!("{maps}/b");
        assert_eq!(server.put(&path, &other).await.refused(400).1, words);
        assert_eq!(server.merge(&path, &json!({"metadata": {"namespace": "other"}})).await.refused(400).1, words);
        // a namespace that is not there takes nothing
        let nowhere = "/api/v1/namespaces/none-such/configmaps";
        let (reason, message) = server.post(nowhere, &json!({"metadata": {"name": "x"}})).await.refused(404);
        assert_eq!((reason.as_str(), message.as_str()), ("NotFound", "namespaces \"none-such\" not found"));
    })
    .await;
}

#[tokio::test]
async fn what_is_empty_is_not_kept() {
    on_each_server(async |server| {
        let body = json!({
            "metadata": {"name": "e", "labels": {}, "annotations": null, "finalizers": [], "ownerReferences": []},
            "data": {}, "binaryData": null, "immutable": null,
        });
        let made = plain(server.post(&server.config_maps(), &body).await.expect(201));
        let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&made), ["apiVersion", "kind", "metadata"]);
        assert_eq!(names(&made["metadata"]), ["creationTimestamp", "name", "namespace", "resourceVersion", "uid"]);
    })
    .await;
}

#[tokio::test]
async fn only_kinds_that_count_their_changes_have_a_generation() {
    on_each_server(async |server| {
        let made = server.post(&server.config_maps(), &json!({"metadata": {"name": "a"}})).await.expect(201);
        assert_eq!(made["metadata"]["generation"], Value::Null);
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let lease = server.post(&leases, &json!({"metadata": {"name": "l"}, "spec": {}})).await.expect(201);
        assert_eq!(lease["metadata"]["generation"], Value::Null);
        let gadgets = server.gadgets(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
        server.post(&gadgets, &server.gadget("g", &json!({"x": 1}))).await.expect(201);
        let path = format!("{gadgets}/g");
        let generation =
            async |body: Value| server.merge(&path, &body).await.expect(200)["metadata"]["generation"].clone();
        assert_eq!(generation(json!({"metadata": {"labels": {"a": "b"}}})).await, 1);
        assert_eq!(generation(json!({"spec": {"x": 2}})).await, 2);
        assert_eq!(generation(json!({"spec": {"x": 2}})).await, 2);
        assert_eq!(generation(json!({"status": {"x": 2}})).await, 2);
        // a client cannot set it
        assert_eq!(generation(json!({"metadata": {"generation": 99}})).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_status_is_written_by_its_own_path_alone() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
        let mut body = server.gadget("g", &json!({"x": 1}));
        body["status"] = json!({"s": 1});
        let made = server.post(&gadgets, &body).await.expect(201);
        assert_eq!(made["status"], Value::Null, "a new object has no status");
        let (path, status) = (format!("{gadgets}/g"), format!("{gadgets}/g/status"));
        let both = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 5}, "status": {"s": 2}});
        let after = server.merge(&status, &both).await.expect(200);
        assert_eq!((&after["spec"]["x"], &after["status"]["s"]), (&json!(1), &json!(2)));
        assert_eq!((&after["metadata"]["labels"], &after["metadata"]["generation"]), (&Value::Null, &json!(1)));
        let after = server.merge(&path, &both).await.expect(200);
        assert_eq!((&after["spec"]["x"], &after["status"]["s"]), (&json!(5), &json!(2)));
        assert_eq!(server.get(&status).await.expect(200)["status"], json!({"s": 2}));
        // resources without a status have no such path
        server.post(&server.config_maps(), &json!({"metadata": {"name": "m"}})).await.expect(201);
        let (reason, _) = server.get(&format!("{}/m/status", server.config_maps())).await.refused(404);
        assert_eq!(reason, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn a_replacement_says_which_object_it_is() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let path = format!("{maps}/a");
        let (_, message) = server.put(&path, &json!({"metadata": {"name": "b"}})).await.refused(400);
        assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
        let (_, message) = server.put(&path, &json!({"data": {}})).await.refused(400);
        assert_eq!(message, "the name of the object (a based on URL) was undeterminable: name must be provided");
        let (reason, message) =
            server.put(&format!("{maps}/none"), &json!({"metadata": {"name": "none"}})).await.refused(404);
        assert_eq!((reason.as_str(), message.as_str()), ("NotFound", "configmaps \"none\" not found"));
    })
    .await;
}

#[tokio::test]
async fn a_replacement_of_an_old_version_is_refused() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let first = server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let path = format!("{maps}/a");
        server.merge(&path, &json!({"data": {"k": "1"}})).await.expect(200);
        let (reason, message) = server.put(&path, &plain(first)).await.refused(409);
        assert_eq!(reason, "Conflict");
        assert_eq!(
            message,
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest \
             version and try again"
        );
        // the same holds for a patch that names a version
        assert_eq!(server.merge(&path, &json!({"metadata": {"resourceVersion": "1"}})).await.refused(409).0, "Conflict");
    })
    .await;
}

#[tokio::test]
async fn a_replacement_without_a_version_takes_the_newest_where_the_kind_allows_it() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.post(&maps, &json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await.expect(201);
        for version in [Value::Null, json!(""), json!("0")] {
            let body = json!({"metadata": {"name": "a", "resourceVersion": version}});
            assert_eq!(server.put(&format!("{maps}/a"), &body).await.expect(200)["data"], Value::Null);
        }
        let refused =
            server.put(&format!("{maps}/a"), &json!({"metadata": {"name": "a", "resourceVersion": "x"}})).await;
        assert_eq!(refused.expect(500)["message"], "strconv.ParseUint: parsing \"x\": invalid syntax");
        // custom resources and leases want to be told
        let gadgets = server.gadgets(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
        server.post(&gadgets, &server.gadget("g", &json!({}))).await.expect(201);
        let refused = server.put(&format!("{gadgets}/g"), &server.gadget("g", &json!({}))).await.expect(422);
        let cause = &refused["details"]["causes"][0];
        assert_eq!(cause["field"], "metadata.resourceVersion");
        assert!(cause["message"].as_str().unwrap().ends_with("must be specified for an update"), "{cause}");
    })
    .await;
}

#[tokio::test]
async fn a_replacement_of_another_object_of_the_name_is_refused() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let made = server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let uid = made["metadata"]["uid"].as_str().unwrap();
        let other = json!({"metadata": {"name": "a", "uid": "other"}});
        let (reason, message) = server.put(&format!("{maps}/a"), &other).await.refused(409);
        assert_eq!(reason, "Conflict");
        assert!(message.starts_with("Operation cannot be fulfilled on configmaps \"a\": "), "{message}");
        let end = format!("Precondition failed: UID in precondition: other, UID in object meta: {uid}");
        assert!(message.ends_with(&end), "{message}");
    })
    .await;
}

#[tokio::test]
async fn fixed_metadata_stays() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let made = server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let path = format!("{maps}/a");
        let (_, message) = server.merge(&path, &json!({"metadata": {"uid": "zzz"}})).await.refused(422);
        assert_eq!(message, "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"zzz\": field is immutable");
        let (_, message) = server.merge(&path, &json!({"metadata": {"name": "zzz"}})).await.refused(400);
        assert_eq!(message, "the name of the object (zzz) does not match the name on the URL (a)");
        let dying = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 3}});
        let (_, message) = server.merge(&path, &dying).await.refused(422);
        assert_eq!(
            message,
            "ConfigMap \"a\" is invalid: [metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable, \
             metadata.deletionGracePeriodSeconds: Invalid value: 3: field is immutable]"
        );
        // others are kept without a word
        let body = json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}});
        let after = server.merge(&path, &body).await.expect(200);
        assert_eq!(after["metadata"]["creationTimestamp"], made["metadata"]["creationTimestamp"]);
        assert_eq!(after["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    })
    .await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_version() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let made = server.post(&maps, &json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await.expect(201);
        let path = format!("{maps}/a");
        let version = &made["metadata"]["resourceVersion"];
        let body = json!({"metadata": {"name": "a"}, "data": {"k": "1"}});
        assert_eq!(server.put(&path, &body).await.expect(200)["metadata"]["resourceVersion"], *version);
        let patched = server.merge(&path, &json!({"data": {"k": "1"}, "metadata": {"labels": {}}})).await.expect(200);
        assert_eq!(patched["metadata"]["resourceVersion"], *version);
        let changed = server.merge(&path, &json!({"data": {"k": "2"}})).await.expect(200);
        assert_ne!(changed["metadata"]["resourceVersion"], *version);
    })
    .await;
}

#[tokio::test]
async fn an_owner_is_named_completely() {
    on_each_server(async |server| {
        let refused = async |owners: Value| {
            let body = json!({"metadata": {"name": "x", "ownerReferences": owners}});
            server.post(&server.config_maps(), &body).await.refused(422).1
        };
        assert_eq!(
            refused(json!([{"apiVersion": "v1", "kind": "", "name": "", "uid": "x"}])).await,
            "ConfigMap \"x\" is invalid: [metadata.ownerReferences.kind: Invalid value: \"\": must not be empty, \
             metadata.ownerReferences.name: Invalid value: \"\": must not be empty]"
        );
        let event = refused(json!([{"apiVersion": "v1", "kind": "Event", "name": "q", "uid": "x"}])).await;
        assert!(event.ends_with("/v1, Kind=Event is disallowed from being an owner"), "{event}");
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "A", "name": name, "uid": name, "controller": true});
        let two = refused(json!([owner("q"), owner("r")])).await;
        let end = "Only one reference can have Controller set to true. Found \"true\" in references for A/q and A/r";
        assert!(two.ends_with(end), "{two}");
    })
    .await;
}
