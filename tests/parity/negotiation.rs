//! In which form and encoding an answer is wanted, and what is said when there is none such.
use serde_json::{Value, json};

use super::harness::{Server, on_each_server};

const WHOLE: &str = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml";
const FORMS: &str = "only the following media types are accepted: application/json, application/yaml";

/// A ConfigMap, and the path to it.
async fn given_a_map(server: &Server) -> String {
    let map = json!({"metadata": {"name": "a"}, "data": {"x": "1"}});
    server.post(&server.config_maps(), &map).await.expect(201);
    format!("{}/a", server.config_maps())
}

async fn answered(server: &Server, path: &str, accept: &str) -> (u16, String, Value) {
    let answer = server.get_as(path, accept).await;
    let kind = answer.headers["content-type"].to_str().unwrap().to_owned();
    (answer.status, kind, answer.body)
}

#[tokio::test]
async fn json_is_what_those_get_who_take_anything() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/json;charset=utf-8",
            "text/html,application/json;q=0.5",
            "application/vnd.example+thing, application/json",
            "application/json;foo=bar",
        ] {
            let (status, kind, body) = answered(server, &path, accept).await;
            assert_eq!((status, kind.as_str()), (200, "application/json"), "{accept}");
            assert_eq!(body["kind"], "ConfigMap", "{accept}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_takes_nothing_of_it_is_told_what_there_is() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        for accept in ["text/html", "application/xml", "text/*", "application/*", "nonsense"] {
            let answer = server.get_as(&path, accept).await;
            assert_eq!(answer.body["details"], json!({}));
            let (reason, message) = answer.refused(406);
            assert_eq!(reason, "NotAcceptable");
            assert!(message.starts_with(WHOLE), "{accept}: {message}");
        }
        // even before it is looked whether there is such an object
        server.get_as(&format!("{}/gone", server.config_maps()), "text/html").await.refused(406);
        // and before anything is made
        let body = json!({"metadata": {"name": "b"}}).to_string();
        let headers = [("content-type", "application/json"), ("accept", "text/html")];
        server.raw("POST", &server.config_maps(), &headers, body.into()).await.refused(406);
        server.get(&format!("{}/b", server.config_maps())).await.refused(404);
    })
    .await;
}

#[tokio::test]
async fn custom_resources_refuse_in_other_words() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        let answer = server.get_as(&gadgets, "text/html").await;
        assert_eq!(answer.body["details"], Value::Null);
        let (reason, message) = answer.refused(406);
        assert_eq!(reason, "NotAcceptable");
        assert!(message.starts_with(FORMS), "{message}");
    })
    .await;
}

#[tokio::test]
async fn forms_that_are_not_known_are_passed_over_or_refused() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        for unknown in ["application/json;as=Nope;v=v1;g=meta.k8s.io", "application/json;as=Table;v=v9;g=meta.k8s.io"] {
            let (reason, message) = server.get_as(&path, unknown).await.refused(406);
            assert_eq!(reason, "NotAcceptable");
            assert!(message.starts_with(FORMS), "{message}");
            let (status, _, body) = answered(server, &path, &format!("{unknown},application/json")).await;
            assert_eq!((status, &body["kind"]), (200, &json!("ConfigMap")));
        }
    })
    .await;
}

#[tokio::test]
async fn the_most_wanted_form_wins() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        let accept = "application/json;q=0.1,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9";
        assert_eq!(answered(server, &path, accept).await.2["kind"], "Table");
        let accept = "application/yaml;q=0.2,application/json;q=0.8";
        assert_eq!(answered(server, &path, accept).await.1, "application/json");
    })
    .await;
}

#[tokio::test]
async fn answers_come_as_yaml_on_demand() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        let answer = server.get_as(&path, "application/yaml").await;
        assert_eq!(answer.headers["content-type"], "application/yaml");
        for line in ["apiVersion: v1", "data:", "  x: \"1\"", "kind: ConfigMap", "  name: a"] {
            assert!(answer.text.lines().any(|found| found == line), "{line} in {}", answer.text);
        }
        // lists and refusals as well
        let list = server.get_as(&server.config_maps(), "application/yaml").await;
        assert!(list.text.contains("\nkind: ConfigMapList\n"), "{}", list.text);
        let refusal = server.get_as(&format!("{path}x"), "application/yaml").await;
        assert_eq!((refusal.status, &refusal.headers["content-type"]), (404, &"application/yaml".parse().unwrap()));
        assert!(refusal.text.contains("\nreason: NotFound\n"), "{}", refusal.text);
        // but a watch is a stream of JSON
        let watch = server.get_as(&format!("{}?watch=true", server.config_maps()), "application/yaml").await;
        assert_eq!((watch.status, &watch.headers["content-type"]), (406, &"application/yaml".parse().unwrap()));
        assert!(watch.text.contains("application/json;stream=watch"), "{}", watch.text);
    })
    .await;
}

#[tokio::test]
async fn one_object_is_no_list_and_a_list_no_object() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        let form = |kind: &str| format!("application/json;as={kind};v=v1;g=meta.k8s.io");
        let (reason, message) = server.get_as(&path, &form("PartialObjectMetadataList")).await.refused(406);
        assert_eq!(
            (reason.as_str(), message.as_str()),
            (
                "NotAcceptable",
                "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"
            )
        );
        let (_, message) = server.get_as(&server.config_maps(), &form("PartialObjectMetadata")).await.refused(406);
        assert_eq!(
            message,
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"
        );
    })
    .await;
}

#[tokio::test]
async fn metadata_alone_is_the_objects_own() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        let whole = server.get(&path).await.expect(200);
        let part =
            server.get_as(&path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.expect(200);
        let expected = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"],
        });
        assert_eq!(part, expected);
        let list = format!("{}?fieldSelector=metadata.name%3Da", server.config_maps());
        let list = server.get_as(&list, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
        let list = list.expect(200);
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
        );
        assert_eq!(list["items"], json!([expected]));
    })
    .await;
}

#[tokio::test]
async fn a_change_is_answered_in_the_form_that_was_asked_for() {
    on_each_server(async |server| {
        let form = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        let body = json!({"metadata": {"name": "made"}, "data": {"x": "1"}}).to_string();
        let headers = [("content-type", "application/json"), ("accept", form)];
        let made = server.raw("POST", &server.config_maps(), &headers, body.into()).await.expect(201);
        assert_eq!((&made["kind"], &made["data"]), (&json!("PartialObjectMetadata"), &Value::Null));
        let headers = [("content-type", "application/merge-patch+json"), ("accept", form)];
        let path = format!("{}/made", server.config_maps());
        let changed = server.raw("PATCH", &path, &headers, r#"{"data":{"x":"2"}}"#.into()).await.expect(200);
        assert_eq!(changed["kind"], "PartialObjectMetadata");
    })
    .await;
}

#[tokio::test]
async fn people_get_answers_indented() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        let shown = async |path: &str, agent: &str| {
            let headers = [("user-agent", agent)];
            let text = server.raw("GET", path, &headers, Default::default()).await.text;
            text.contains("\n  \"kind\": \"ConfigMap\"")
        };
        assert!(shown(&format!("{path}?pretty=true"), "someone").await);
        assert!(!shown(&path, "someone").await);
        assert!(shown(&path, "curl/8.0").await);
        assert!(!shown(&format!("{path}?pretty=false"), "curl/8.0").await);
    })
    .await;
}

#[tokio::test]
async fn every_answer_has_a_number_and_is_not_to_be_kept() {
    on_each_server(async |server| {
        let path = given_a_map(server).await;
        let (first, second) = (server.get(&path).await, server.get(&format!("{path}x")).await);
        for answer in [&first, &second] {
            assert_eq!(answer.headers["cache-control"], "no-cache, private");
        }
        assert_ne!(first.headers["audit-id"], second.headers["audit-id"]);
    })
    .await;
}
