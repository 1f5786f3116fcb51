//! Definitions of custom resources: their names, and how their objects come and go with them.
use serde_json::{Value, json};

use super::{Server, on_each_server};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn definition(server: &Server) -> Value {
    json!({
        "metadata": {"name": format!("gadgets.{}", server.group)},
        "spec": {
            "group": server.group, "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    })
}

/// The faults told about a definition that is changed like this.
async fn faults(server: &Server, change: impl FnOnce(&mut Value)) -> String {
    let mut body = definition(server);
    change(&mut body);
    let name = body["metadata"]["name"].as_str().unwrap().to_owned();
    let (_, message) = server.post(PATH, &body).await.refused(422);
    let start = format!("CustomResourceDefinition.apiextensions.k8s.io \"{name}\" is invalid: ");
    message.strip_prefix(&start).unwrap_or(&message).to_owned()
}

#[tokio::test]
async fn a_definition_gets_its_missing_names_and_says_when_it_is_served() {
    on_each_server(async |server| {
        let made = server.post(PATH, &definition(server)).await.expect(201);
        let names = json!({"plural": "gadgets", "kind": "Gadget", "singular": "gadget", "listKind": "GadgetList"});
        assert_eq!((&made["spec"]["names"], &made["spec"]["conversion"]), (&names, &json!({"strategy": "None"})));
        assert_eq!(made["metadata"]["generation"], 1);
        let path = format!("{PATH}/gadgets.{}", server.group);
        let status = async || server.get(&path).await.body["status"].clone();
        let condition = async |kind: &str| {
            let all = status().await["conditions"].clone();
            all.as_array()
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == kind)
                .cloned()
                .unwrap_or_default()
        };
        server.until("it is established", async || condition("Established").await["status"] == "True").await;
        let established = condition("Established").await;
        assert_eq!(established["reason"], "InitialNamesAccepted");
        assert_eq!(established["message"], "the initial names have been accepted");
        let accepted = condition("NamesAccepted").await;
        assert_eq!((&accepted["reason"], &accepted["message"]), (&json!("NoConflicts"), &json!("no conflicts found")));
        assert_eq!((&status().await["acceptedNames"], &status().await["storedVersions"]), (&names, &json!(["v1"])));
    })
    .await;
}

#[tokio::test]
async fn a_definition_is_named_after_its_resource() {
    on_each_server(async |server| {
        let words = faults(server, |body| body["metadata"]["name"] = json!(format!("x.{}", server.group))).await;
        assert_eq!(
            words,
            format!("metadata.name: Invalid value: \"x.{}\": must be spec.names.plural+\".\"+spec.group", server.group)
        );
        let words = faults(server, |body| {
            body["spec"]["group"] = json!("nodots");
            body["metadata"]["name"] = json!("gadgets.nodots");
        })
        .await;
        assert_eq!(words, "spec.group: Invalid value: \"nodots\": should be a domain with at least one dot");
    })
    .await;
}

#[tokio::test]
async fn a_definition_says_its_scope() {
    on_each_server(async |server| {
        let words = faults(server, |body| body["spec"]["scope"] = json!("Bogus")).await;
        assert_eq!(words, "spec.scope: Unsupported value: \"Bogus\": supported values: \"Cluster\", \"Namespaced\"");
        let words = faults(server, |body| body["spec"]["scope"] = json!("")).await;
        assert_eq!(words, "spec.scope: Required value");
    })
    .await;
}

#[tokio::test]
async fn names_of_a_definition_are_dns_labels() {
    on_each_server(async |server| {
        let label = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and \
                     end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
                     '[a-z]([-a-z0-9]*[a-z0-9])?')";
        let words = faults(server, |body| body["spec"]["names"]["shortNames"] = json!(["Bad Name"])).await;
        assert_eq!(words, format!("spec.names.shortNames[0]: Invalid value: \"Bad Name\": {label}"));
        let words = faults(server, |body| body["spec"]["names"]["singular"] = json!("Bad Name")).await;
        assert_eq!(words, format!("spec.names.singular: Invalid value: \"Bad Name\": {label}"));
        let words = faults(server, |body| body["spec"]["names"]["listKind"] = json!("Gadget")).await;
        assert_eq!(words, "spec.names.listKind: Invalid value: \"Gadget\": kind and listKind may not be the same");
    })
    .await;
}

#[tokio::test]
async fn one_version_of_a_definition_is_stored() {
    on_each_server(async |server| {
        let words = faults(server, |body| body["spec"]["versions"][0]["storage"] = json!(false)).await;
        assert!(words.contains("must have exactly one version marked as storage version"), "{words}");
        let words = faults(server, |body| {
            let mut second = body["spec"]["versions"][0].clone();
            second["storage"] = json!(false);
            body["spec"]["versions"].as_array_mut().unwrap().push(second);
        })
        .await;
        assert!(words.ends_with("must contain unique version names"), "{words}");
    })
    .await;
}

#[tokio::test]
async fn what_a_definition_is_of_stays() {
    on_each_server(async |server| {
        server.gadgets(&json!({"type": "object"})).await;
        let path = format!("{PATH}/gadgets.{}", server.group);
        for (change, words) in [
            (json!({"scope": "Cluster"}), "spec.scope: Invalid value: \"Cluster\": field is immutable"),
            (json!({"names": {"kind": "Other"}}), "spec.names.kind: Invalid value: \"Other\": field is immutable"),
            (json!({"group": "other.example"}), "spec.group: Invalid value: \"other.example\": field is immutable"),
        ] {
            let (_, message) = server.merge(&path, &json!({"spec": change})).await.refused(422);
            assert!(message.ends_with(&format!("is invalid: {words}")), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        let mut held = server.gadget("g", &Value::Null);
        held["metadata"]["finalizers"] = json!(["a.b/c"]);
        server.post(&gadgets, &held).await.expect(201);
        let path = format!("{PATH}/gadgets.{}", server.group);
        server.delete(&path, &json!({})).await.expect(200);
        let dying = async || !server.get(&format!("{gadgets}/g")).await.body["metadata"]["deletionTimestamp"].is_null();
        server.until("the object is dying", dying).await;
        let waiting = server.get(&path).await.expect(200);
        assert_eq!(waiting["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
        server.merge(&format!("{gadgets}/g"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        server.until("the definition is gone", async || server.get(&path).await.status == 404).await;
        server.until("its objects are served no more", async || server.get(&gadgets).await.status == 404).await;
    })
    .await;
}
