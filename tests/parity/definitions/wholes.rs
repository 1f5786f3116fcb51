//! Definitions as a whole: their names, versions and subresources.
use serde_json::{Value, json};

use crate::parity::{Server, on_each_server};

#[tokio::test]
async fn the_paths_of_the_scale_subresource_lie_in_spec_and_status() {
    on_each_server(async |server| {
        let scale = |spec: &str, status: &str, selector: &str| {
            let paths = json!({"specReplicasPath": spec, "statusReplicasPath": status, "labelSelectorPath": selector});
            json!({"schema": {"openAPIV3Schema": {"type": "object"}}, "subresources": {"scale": paths}})
        };
        for (version, field, words) in [
            (
                scale("x", ".status.a", ".status.b"),
                "specReplicasPath",
                "\"x\": must be a simple json path starting with .",
            ),
            (scale(".x", ".status.a", ".status.b"), "specReplicasPath", "\".x\": should be a json path under .spec"),
            (
                scale(".spec.a", ".spec.a", ".status.b"),
                "statusReplicasPath",
                "\".spec.a\": should be a json path under .status",
            ),
            (scale(".spec.a", ".status.a", ".x"), "labelSelectorPath", "\".x\": should be a json path under .status"),
        ] {
            let (_, message) = server.try_version(&version).await.refused(422);
            assert!(message.contains(&format!(".scale.{field}: Invalid value: {words}")), "{message}");
        }
        server.try_version(&scale(".spec.a", ".status.a", ".status.b")).await.expect(201);
    })
    .await;
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition in the scenario's group with these names.
fn named(server: &Server, plural: &str, kind: &str, short: &[&str]) -> Value {
    let mut names =
        json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")});
    if !short.is_empty() {
        names["shortNames"] = json!(short);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{}", server.group)},
        "spec": {
            "group": server.group, "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    })
}

impl Server {
    fn definition(&self, plural: &str) -> String {
        format!("{DEFINITIONS}/{plural}.{}", self.group)
    }
    /// Reason and status of a definition's condition; empty where it is not told.
    async fn told(&self, plural: &str, kind: &str) -> String {
        let found = self.get(&self.definition(plural)).await.body;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = conditions.iter().find(|condition| condition["type"] == kind);
        one.map(|one| format!("{} {}", text(&one["reason"]), text(&one["status"]))).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_name_is_given_once_in_a_group() {
    on_each_server(async |server| {
        server.post(DEFINITIONS, &named(server, "ones", "One", &["o"])).await.expect(201);
        server.until("served", async || server.told("ones", "Established").await == "InitialNamesAccepted True").await;
        for (plural, kind, short, reason) in [
            ("twos", "One", &[][..], "ListKindConflict"),
            ("threes", "Three", &["o"][..], "ShortNamesConflict"),
            ("fours", "Four", &["ones"][..], "ShortNamesConflict"),
        ] {
            server.post(DEFINITIONS, &named(server, plural, kind, short)).await.expect(201);
            // then it is not served, and says why
            server
                .until(reason, async || server.told(plural, "NamesAccepted").await == format!("{reason} False"))
                .await;
            assert_eq!(server.told(plural, "Established").await, "NotAccepted False", "{plural}");
            assert_eq!(server.get(&server.path(&format!("apis/{}/v1", server.group), plural)).await.status, 404);
        }
        // what has never been served may take another name
        let mut third = server.get(&server.definition("threes")).await.expect(200);
        third["spec"]["names"]["kind"] = json!("Drei");
        third["spec"]["names"]["listKind"] = json!("DreiList");
        third["spec"]["names"]["shortNames"] = json!(["d"]);
        server.put(&server.definition("threes"), &third).await.expect(200);
        server.until("three", async || server.told("threes", "Established").await == "InitialNamesAccepted True").await;
        // once the first is gone, its names are free for the second
        server.delete(&server.definition("ones"), &Value::Null).await.expect(200);
        server.until("two", async || server.told("twos", "Established").await == "InitialNamesAccepted True").await;
        let path = server.path(&format!("apis/{}/v1", server.group), "twos");
        server.until("two is served", async || server.get(&path).await.status == 200).await;
        for plural in ["twos", "threes", "fours"] {
            server.delete(&server.definition(plural), &Value::Null).await.expect(200);
        }
    })
    .await;
}

#[tokio::test]
async fn accepted_names_follow_those_that_are_wanted() {
    on_each_server(async |server| {
        server.post(DEFINITIONS, &named(server, "gadgets", "Gadget", &["g"])).await.expect(201);
        let path = server.definition("gadgets");
        server
            .until("served", async || server.told("gadgets", "Established").await == "InitialNamesAccepted True")
            .await;
        let names = json!({"shortNames": ["gd"], "categories": ["things"]});
        server.merge(&path, &json!({"spec": {"names": names}})).await.expect(200);
        server
            .until("names follow", async || {
                let got = server.get(&path).await.body["status"]["acceptedNames"].clone();
                (&got["shortNames"], &got["categories"]) == (&names["shortNames"], &names["categories"])
            })
            .await;
        let told = format!("/apis/{}/v1", server.group);
        server
            .until("discovery follows", async || {
                server.get(&told).await.body["resources"][0]["shortNames"] == names["shortNames"]
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_version_in_which_objects_may_be_kept_stays() {
    on_each_server(async |server| {
        let version = |name: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}})
        };
        server.post(DEFINITIONS, &named(server, "gadgets", "Gadget", &[])).await.expect(201);
        let path = server.definition("gadgets");
        let versions = |versions: Value| json!({"spec": {"versions": versions}});
        let lost = |name: &str| {
            format!(
                "status.storedVersions[0]: Invalid value: \"{name}\": missing from spec.versions; {name} was previously a storage \
                 version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} \
                 and removes {name} from status.storedVersions"
            )
        };
        // when the only version gets another name, then that is refused
        let (_, message) = server.merge(&path, &versions(json!([version("v2", true)]))).await.refused(422);
        assert!(message.contains(&lost("v1")), "{message}");
        // a new version may become that of storage; the old one is remembered
        let both = versions(json!([version("v1", false), version("v2", true)]));
        let moved = server.merge(&path, &both).await.expect(200);
        assert_eq!(moved["status"]["storedVersions"], json!(["v1", "v2"]));
        let (_, message) = server.merge(&path, &versions(json!([version("v2", true)]))).await.refused(422);
        assert!(message.contains(&lost("v1")), "{message}");
        // until somebody says that nothing is kept in it any more
        server.merge(&format!("{path}/status"), &json!({"status": {"storedVersions": ["v2"]}})).await.expect(200);
        server.merge(&path, &versions(json!([version("v2", true)]))).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_was_read_can_be_written_back_unchanged() {
    on_each_server(async |server| {
        server.post(DEFINITIONS, &named(server, "gadgets", "Gadget", &[])).await.expect(201);
        server
            .until("served", async || server.told("gadgets", "Established").await == "InitialNamesAccepted True")
            .await;
        server.post(&server.config_maps(), &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.expect(201);
        for path in [server.definition("gadgets"), format!("{}/a", server.config_maps())] {
            let read = server.get(&path).await.expect(200);
            assert!(read["metadata"]["managedFields"][0]["fieldsV1"].is_object(), "{read}");
            let answer = server.put(&format!("{path}?fieldValidation=Strict"), &read).await;
            assert_eq!(answer.warnings(), [""; 0]);
            assert_eq!(answer.expect(200)["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
        }
    })
    .await;
}
