//! Requests that cannot be served: unknown paths, methods, bodies and parameters.
use serde_json::{Value, json};

use super::harness::{Server, on_each_server};

const NOTHING: &str = "the server could not find the requested resource";
const NO_METHOD: &str = "the server does not allow this method on the requested resource";

#[tokio::test]
async fn unknown_resources_of_a_known_group_are_refused_as_status() {
    on_each_server(async |server| {
        let inside = server.path("api/v1", "nopes");
        for path in [
            "/api/v1/nopes",
            "/api/v9",
            "/api/v9/configmaps",
            "/apis/coordination.k8s.io/v9",
            "/apis/coordination.k8s.io/v1/nope",
            "/apis/authorization.k8s.io/v1/nope",
            &inside,
            "/api/v1/configmaps/x",
            &format!("{}/x/status", server.config_maps()),
        ] {
            let answer = server.get(path).await;
            let expected = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": NOTHING,
                "reason": "NotFound", "details": {}, "code": 404,
            });
            assert_eq!(answer.expect(404), expected, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn paths_outside_of_every_group_are_refused_in_plain_text() {
    on_each_server(async |server| {
        let other = format!("/apis/{}/v1/gadgets", server.group);
        for path in ["/nope", "/apis/nope.example", "/apis/nope.example/v1", &other, "/apix/v1"] {
            let answer = server.get(path).await;
            assert_eq!((answer.status, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
            assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        }
        // so are versions, places and kinds that a definition does not have
        server.gadgets(&json!({"type": "object"})).await;
        let base = format!("/apis/{}", server.group);
        for path in ["v2", "v2/gadgets", "v1/nopes", "v1/gadgets/x"] {
            let answer = server.get(&format!("{base}/{path}")).await;
            assert_eq!((answer.status, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
        }
        assert_eq!(server.post(&format!("{base}/v1/gadgets"), &server.gadget("x", &json!({}))).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_part_of_a_custom_resource_is_not_found_by_its_name() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        for part in ["scale", "nope"] {
            let answer = server.get(&format!("{gadgets}/x/{part}")).await;
            assert_eq!(answer.body["details"], json!({"name": "x", "group": server.group, "kind": "gadgets"}));
            let message = format!("gadgets.{} \"x\" not found", server.group);
            assert_eq!(answer.refused(404), ("NotFound".to_owned(), message));
        }
    })
    .await;
}

#[tokio::test]
async fn methods_that_a_path_does_not_have_are_refused() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let one = format!("{maps}/x");
        let status = format!("/api/v1/namespaces/{}/status", server.namespace);
        for (method, path) in [
            ("PUT", maps.as_str()),
            ("PATCH", &maps),
            ("POST", &one),
            ("POST", "/api/v1/configmaps"),
            ("DELETE", "/api/v1/configmaps"),
            ("DELETE", "/api/v1/namespaces"),
            ("POST", &status),
            ("DELETE", &status),
            ("POST", "/api"),
            ("POST", "/apis/coordination.k8s.io/v1"),
            ("OPTIONS", &maps),
            ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ] {
            let answer = server.call(method, path, "application/json", &json!({})).await;
            assert_eq!(answer.body["details"], json!({}), "{method} {path}");
            assert_eq!(answer.refused(405), ("MethodNotAllowed".to_owned(), NO_METHOD.to_owned()), "{method} {path}");
        }
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        let answer = server.delete(&format!("{gadgets}/x/status"), &Value::Null).await;
        let message = format!("delete is not supported on resources of kind \"gadgets.{}\"", server.group);
        assert_eq!(answer.refused(405), ("MethodNotAllowed".to_owned(), message));
    })
    .await;
}

#[tokio::test]
async fn details_hold_only_what_there_is_to_say() {
    on_each_server(async |server| {
        let answer = server.get(&format!("{}/gone", server.config_maps())).await;
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
            "message": "configmaps \"gone\" not found", "reason": "NotFound",
            "details": {"name": "gone", "kind": "configmaps"},
        });
        assert_eq!(answer.expect(404), expected);
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let answer = server.get(&format!("{leases}/gone")).await;
        assert_eq!(answer.body["details"], json!({"name": "gone", "group": "coordination.k8s.io", "kind": "leases"}));
        assert_eq!(answer.refused(404).1, "leases.coordination.k8s.io \"gone\" not found");
    })
    .await;
}

#[tokio::test]
async fn a_deletion_is_answered_with_what_was_deleted() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let made = server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let answer = server.delete(&format!("{maps}/a"), &Value::Null).await.expect(200);
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]},
        });
        assert_eq!(answer, expected);
    })
    .await;
}

#[tokio::test]
async fn paths_are_decoded_before_they_are_read() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.post(&maps, &json!({"metadata": {"name": "a.b"}})).await.expect(201);
        server.get(&format!("{maps}/a%2Eb")).await.expect(200);
        assert_eq!(server.get(&format!("{maps}/a%20b")).await.refused(404).1, "configmaps \"a b\" not found");
        assert_eq!(server.get(&format!("{maps}/a%2Fb")).await.refused(404).1, NOTHING);
        server.get(&format!("{maps}/")).await.expect(200);
        assert_eq!(server.get(&format!("{maps}//a.b")).await.refused(404).1, NOTHING);
        let (reason, message) = server.get(&format!("{maps}/%2e%2e")).await.refused(400);
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("BadRequest", "Name parameter invalid: \"..\": may not be '..'")
        );
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_is_not_there_has_no_objects() {
    on_each_server(async |server| {
        let list = server.get("/api/v1/namespaces/parity-nowhere/configmaps").await.expect(200);
        assert_eq!(list["items"], json!([]));
        let refusal =
            server.post("/api/v1/namespaces/parity-nowhere/configmaps", &json!({"metadata": {"name": "a"}})).await;
        assert_eq!(refusal.refused(404).1, "namespaces \"parity-nowhere\" not found");
    })
    .await;
}

/// Sends a body to the ConfigMaps and gives the refusal.
async fn refused(server: &Server, content_type: &str, body: &str, code: u16) -> String {
    let headers = [("content-type", content_type)];
    server.raw("POST", &server.config_maps(), &headers, body.to_owned().into()).await.refused(code).1
}

#[tokio::test]
async fn bodies_of_another_type_are_refused() {
    on_each_server(async |server| {
        let words = "the body of the request was in an unknown format - accepted media types include: application/json, \
            application/yaml, application/vnd.kubernetes.protobuf";
        for kind in ["text/plain", "application/xml", "application/merge-patch+json", "application/json;foo", "nonsense"] {
            assert_eq!(refused(server, kind, "{}", 415).await, words, "{kind}");
        }
        // The same words from what replaces and what deletes.
        for method in ["PUT", "DELETE"] {
            let path = format!("{}/a", server.config_maps());
            let answer = server.raw(method, &path, &[("content-type", "text/plain")], "{}".into()).await;
            assert_eq!(answer.refused(415), ("UnsupportedMediaType".to_owned(), words.to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_are_json_where_nothing_is_said_and_may_be_yaml() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.raw("POST", &maps, &[], r#"{"metadata":{"name":"a"}}"#.into()).await.expect(201);
        let parameter = [("content-type", "application/json; charset=utf-8")];
        server.raw("POST", &maps, &parameter, r#"{"metadata":{"name":"b"}}"#.into()).await.expect(201);
        let yaml = [("content-type", "application/yaml")];
        let made = server.raw("POST", &maps, &yaml, "metadata:\n  name: c\ndata: {x: '1'}\n".into()).await.expect(201);
        assert_eq!(made["data"], json!({"x": "1"}));
    })
    .await;
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_its_beginning() {
    on_each_server(async |server| {
        let words = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
        let json = "application/json";
        let message = refused(server, json, "{bad", 400).await;
        assert!(message.starts_with(words) && message.ends_with("({bad)"), "{message}");
        let message = refused(server, json, r#"{"metadata":{"name":"name"}} trailing"#, 400).await;
        assert!(message.ends_with(r#"({"metadata":{"name":"name"}} t ...)"#), "{message}");
        let message = refused(server, json, "", 400).await;
        assert_eq!(message, format!("{words}unexpected end of JSON input (<empty>)"));
        let go = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        let message = refused(server, json, "[]", 400).await;
        assert_eq!(message, format!("{words}json: cannot unmarshal array into Go value of type {go} (5b5d)"));
        let message = refused(server, "application/yaml", "a: [unclosed", 400).await;
        assert!(message.starts_with("the object provided is unrecognized (must be of type ConfigMap): yaml: "), "{message}");
        assert!(message.ends_with("(613a205b756e636c6f736564)"), "{message}");
        // an object without anything lacks its name first
        let message = refused(server, json, "null", 422).await;
        assert_eq!(message, "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required");
    })
    .await;
}

#[tokio::test]
async fn objects_of_another_kind_are_refused() {
    on_each_server(async |server| {
        let json = "application/json";
        let body = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#;
        let words = "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion";
        assert_eq!(refused(server, json, body, 400).await, words);
        let put = server.raw("PUT", &format!("{}/a", server.config_maps()), &[("content-type", json)], body.into()).await;
        assert_eq!(put.refused(400).1, words);
        let message = refused(server, json, r#"{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}"#, 400).await;
        let words = "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\"";
        assert!(message.starts_with(words), "{message}");
        let message = refused(server, json, r#"{"kind":"Nope","apiVersion":"nope.example/v1"}"#, 400).await;
        let words = "Nope in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nope\" is registered for version \"nope.example/v1\"";
        assert!(message.starts_with(words), "{message}");
        // what the path says need not be said again
        for (name, body) in [("b", json!({"kind": "ConfigMap"})), ("c", json!({"apiVersion": "v1"}))] {
            let mut body = body;
            body["metadata"] = json!({"name": name});
            server.post(&server.config_maps(), &body).await.expect(201);
        }
    })
    .await;
}

#[tokio::test]
async fn fields_of_a_wrong_type_are_refused() {
    on_each_server(async |server| {
        let words = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: ";
        for body in [
            r#"{"metadata":{"name":"a"},"data":{"x":1}}"#,
            r#"{"metadata":{"name":7}}"#,
            r#"{"data":[]}"#,
            r#"{"metadata":{"name":"a","labels":{"x":true}}}"#,
            r#"{"metadata":{"name":"a"},"immutable":"yes"}"#,
        ] {
            let message = refused(server, "application/json", body, 400).await;
            assert!(message.starts_with(words), "{message}");
        }
        let message = refused(server, "application/json", r#"{"metadata":[]}"#, 400).await;
        let words = format!(
            "{words}json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta"
        );
        assert_eq!(message, words);
    })
    .await;
}

#[tokio::test]
async fn custom_resources_say_what_they_are() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        let version = format!("{}/v1", server.group);
        let (_, message) = server.post(&gadgets, &json!({"metadata": {"name": "x"}})).await.refused(400);
        let text = r#"{"metadata":{"name":"x"}}"#;
        let words = "the object provided is unrecognized (must be of type Gadget): Object 'Kind' is missing in ";
        assert_eq!(message, format!("{words}'{text}' ({text})"));
        let (_, message) = server.post(&gadgets, &json!({"kind": "Gadget", "metadata": {"name": "x"}})).await.refused(400);
        assert_eq!(message, format!("the API version in the data () does not match the expected API version ({version})"));
        let other = json!({"apiVersion": format!("{}/v2", server.group), "kind": "Gadget", "metadata": {"name": "x"}});
        let (_, message) = server.post(&gadgets, &other).await.refused(400);
        let words = format!("the API version in the data ({}/v2) does not match the expected API version ({version})", server.group);
        assert_eq!(message, words);
        let other = json!({"apiVersion": version, "kind": "Other", "metadata": {"name": "x"}});
        let (reason, message) = server.post(&gadgets, &other).await.refused(422);
        let words = format!("Other.{} \"x\" is invalid: kind: Invalid value: \"Other\": must be Gadget", server.group);
        assert_eq!((reason.as_str(), message), ("Invalid", words));
        let bad = json!({"apiVersion": version, "kind": "Gadget", "metadata": []});
        let (_, message) = server.post(&gadgets, &bad).await.refused(400);
        let words = "Gadget in version \"v1\" cannot be handled as a Gadget: json: cannot unmarshal array into Go value of type v1.ObjectMeta";
        assert_eq!(message, words);
    })
    .await;
}

#[tokio::test]
async fn patches_of_an_unknown_type_are_refused() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        for kind in ["application/json", "text/plain", "", "application/apply-patch+json"] {
            let answer = server.call("PATCH", &path, kind, &json!({})).await;
            assert_eq!(answer.body["details"], json!({}));
            let words = ("UnsupportedMediaType".to_owned(), "415: Unsupported Media Type".to_owned());
            assert_eq!(answer.refused(415), words, "{kind}");
        }
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        for kind in ["application/json", "application/strategic-merge-patch+json"] {
            let (_, message) = server.call("PATCH", &format!("{gadgets}/a"), kind, &json!({})).await.refused(415);
            let words = "the body of the request was in an unknown format - accepted media types include: ";
            let patches = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            assert!(message.starts_with(&format!("{words}{patches}")), "{kind}: {message}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_place_of_an_object_is_that_of_its_path() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let words = "the namespace of the provided object does not match the namespace sent on the request";
        let other = json!({"metadata": {"name": "a", "namespace": "other"}});
        assert_eq!(server.post(&maps, &other).await.refused(400).1, words);
        server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let path = format!("{maps}/a");
        assert_eq!(server.put(&path, &other).await.refused(400).1, words);
        let (_, message) = server.put(&path, &json!({"metadata": {"name": "b"}})).await.refused(400);
        assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
        let (_, message) = server.put(&path, &json!({})).await.refused(400);
        assert_eq!(message, "the name of the object (a based on URL) was undeterminable: name must be provided");
    })
    .await;
}

#[tokio::test]
async fn without_the_right_token_nothing_is_said() {
    on_each_server(async |server| {
        let headers = [("authorization", "Bearer another")];
        let answer = server.stranger(&server.config_maps(), &headers).await;
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
            "reason": "Unauthorized", "code": 401,
        });
        assert_eq!(answer.expect(401), expected);
        // Without any token it is 401 or, on clusters that know strangers, 403.
        let status = server.stranger(&server.config_maps(), &[]).await.status;
        assert!([401, 403].contains(&status), "{status}");
    })
    .await;
}
