//! What is said of fields that a kind does not have, or that stand twice.
use serde_json::{Value, json};

use super::managed::schema;
use super::{Answer, Server, on_each_server};

/// Strict, Warn and Ignore, and what is said when nothing is asked for.
async fn each(server: &Server, path: &str, method: &str, content_type: &str, body: &str) -> [Answer; 4] {
    let mut answers = Vec::new();
    for validation in ["Strict", "Warn", "", "Ignore"] {
        let path = format!("{path}?dryRun=All&fieldValidation={validation}");
        answers.push(server.raw(method, &path, &[("content-type", content_type)], body.to_owned().into()).await);
    }
    answers.try_into().unwrap()
}

/// Strict refuses with these words joined, Warn and the default tell each, Ignore says nothing.
fn told(answers: [Answer; 4], before: &str, words: &[&str]) {
    let [strict, warn, default, ignore] = answers;
    let code = strict.status;
    let (_, message) = strict.refused(code);
    assert_eq!(message, format!("{before}strict decoding error: {}", words.join(", ")));
    let expected: Vec<String> = words.iter().map(|word| format!("299 - \"{}\"", word.replace('"', "\\\""))).collect();
    assert_eq!(warn.warnings(), expected);
    assert_eq!(default.warnings(), expected);
    assert_eq!(ignore.warnings(), Vec::<String>::new());
    assert!([warn.status, default.status, ignore.status].iter().all(|status| *status < 300));
}

#[tokio::test]
async fn a_built_in_kind_tells_unknown_and_repeated_fields_in_their_order() {
    on_each_server(async |server| {
        let body = r#"{"metadata":{"name":"a","bad":1},"nope":1,"data":{"q":"1","q":"2"},"zz":{"y":1}}"#;
        let answers = each(server, &server.config_maps(), "POST", "application/json", body).await;
        let words = [
            "unknown field \"metadata.bad\"",
            "unknown field \"nope\"",
            "duplicate field \"data.q\"",
            "unknown field \"zz\"",
        ];
        told(answers, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: ", &words);
    })
    .await;
}

#[tokio::test]
async fn a_custom_resource_tells_repeated_fields_first() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let body = format!(
            r#"{{"apiVersion":"{}/v1","kind":"Gadget","metadata":{{"name":"a","bad":1}},"nope":1,"spec":{{"a":"1","a":"2","zz":1,"sub":{{"q":1}},"map":[{{"id":"1","bad":1}}]}}}}"#,
            server.group
        );
        let answers = each(server, &gadgets, "POST", "application/json", &body).await;
        let words = [
            "duplicate field \"spec.a\"", "unknown field \"metadata.bad\"", "unknown field \"nope\"",
            "unknown field \"spec.map[0].bad\"", "unknown field \"spec.sub.q\"", "unknown field \"spec.zz\"",
        ];
        told(answers, "Gadget in version \"v1\" cannot be handled as a Gadget: ", &words);
    })
    .await;
}

#[tokio::test]
async fn a_replacement_is_read_like_a_new_object() {
    on_each_server(async |server| {
        let map = format!("{}/a", server.config_maps());
        server.post(&server.config_maps(), &json!({"metadata": {"name": "a"}})).await.expect(201);
        let answers = each(server, &map, "PUT", "application/json", r#"{"metadata":{"name":"a"},"nope":1}"#).await;
        told(answers, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: ", &["unknown field \"nope\""]);
        let gadgets = server.gadgets(&schema()).await;
        let made = server.post(&gadgets, &server.gadget("a", &json!({}))).await.expect(201);
        let mut body = server.gadget("a", &json!({"nope": 1}));
        body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        let answers = each(server, &format!("{gadgets}/a"), "PUT", "application/json", &body.to_string()).await;
        told(answers, "Gadget in version \"v1\" cannot be handled as a Gadget: ", &["unknown field \"spec.nope\""]);
    })
    .await;
}

#[tokio::test]
async fn yaml_bodies_are_read_too() {
    on_each_server(async |server| {
        let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nnope: 1\ndata:\n  k: \"1\"\n  k: \"2\"\n";
        let [strict, warn, _, ignore] = each(server, &server.config_maps(), "POST", "application/yaml", body).await;
        let words = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 7: key \"k\" already set in map, unknown field \"nope\"";
        assert_eq!(strict.refused(400), ("BadRequest".to_owned(), words.to_owned()));
        assert_eq!(warn.warnings(), ["299 - \"line 7: key \\\"k\\\" already set in map\"", "299 - \"unknown field \\\"nope\\\"\""]);
        assert_eq!(ignore.expect(201)["data"], json!({"k": "2"}));
    })
    .await;
}

#[tokio::test]
async fn a_strict_patch_quotes_what_came_of_it() {
    on_each_server(async |server| {
        let map = format!("{}/a", server.config_maps());
        server.post(&server.config_maps(), &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.expect(201);
        let cases = [
            ("application/merge-patch+json", r#"{"nope":1}"#, "unknown field \"nope\""),
            ("application/merge-patch+json", r#"{"data":{"q":"1","q":"2"}}"#, "duplicate field \"data.q\""),
            ("application/json-patch+json", r#"[{"op":"add","path":"/nope","value":"1"}]"#, "unknown field \"nope\""),
            ("application/json-patch+json", r#"[{"op":"add","path":"/data/y","value":"1","odd":1}]"#, "json patch unknown field \"[0].odd\""),
        ];
        for (content_type, body, words) in cases {
            let [strict, warn, _, ignore] = each(server, &map, "PATCH", content_type, body).await;
            assert_eq!(strict.body["details"]["causes"][0]["field"], "patch");
            let (reason, message) = strict.refused(422);
            assert!(reason == "Invalid" && message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{message}");
            assert!(message.ends_with(&format!("}}\": strict decoding error: {words}")), "{message}");
            assert_eq!(warn.warnings(), [format!("299 - \"{}\"", words.replace('"', "\\\""))]);
            assert_eq!((warn.status, ignore.status, ignore.warnings().len()), (200, 200, 0));
        }
        let strategic = "application/strategic-merge-patch+json";
        let [strict, ..] = each(server, &map, "PATCH", strategic, r#"{"nope":1,"metadata":{"bad":1}}"#).await;
        let words = " \"\" is invalid: patch: Invalid value: \"map[metadata:map[bad:1] nope:1]\": strict decoding error: unknown field \"metadata.bad\", unknown field \"nope\"";
        assert_eq!(strict.refused(422).1, words);
        let [strict, ..] = each(server, &map, "PATCH", strategic, r#"{"data":{"q":"1","q":"2"}}"#).await;
        let words = " \"\" is invalid: patch: Invalid value: \"map[data:map[q:2]]\": strict decoding error: duplicate field \"data.q\"";
        assert_eq!(strict.refused(422).1, words);
    })
    .await;
}

#[tokio::test]
async fn unknown_fields_are_not_kept() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let made = server
            .post(&maps, &json!({"metadata": {"name": "a", "bad": 1}, "nope": {"x": 1}, "data": {"k": "v"}}))
            .await
            .expect(201);
        assert_eq!((&made["nope"], &made["metadata"]["bad"]), (&Value::Null, &Value::Null));
        let patched = server.merge(&format!("{maps}/a"), &json!({"nope": 1, "data": {}})).await.expect(200);
        assert_eq!((&patched["nope"], &patched["data"]), (&Value::Null, &json!({"k": "v"})));
    })
    .await;
}

#[tokio::test]
async fn values_of_the_wrong_type_cannot_be_read() {
    on_each_server(async |server| {
        let services = server.path("api/v1", "services");
        let cases = [
            (
                server.config_maps(),
                json!({"data": {"n": 5}}),
                "ConfigMap",
                "number into Go struct field ConfigMap.data of type string",
            ),
            (
                server.config_maps(),
                json!({"immutable": "x"}),
                "ConfigMap",
                "string into Go struct field ConfigMap.immutable of type bool",
            ),
            (
                server.config_maps(),
                json!({"metadata": {"name": 5}}),
                "ConfigMap",
                "number into Go struct field ObjectMeta.metadata.name of type string",
            ),
            (
                services,
                json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": "x"}]}}),
                "Service",
                "string into Go struct field ServicePort.spec.ports.port of type int32",
            ),
        ];
        for (path, body, kind, words) in cases {
            let (reason, message) = server.post(&path, &body).await.refused(400);
            let expected =
                format!("{kind} in version \"v1\" cannot be handled as a {kind}: json: cannot unmarshal {words}");
            assert_eq!((reason.as_str(), message), ("BadRequest", expected));
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let send = async |content_type: &str, body: &str| server.raw("POST", &maps, &[("content-type", content_type)], body.to_owned().into()).await;
        let start = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
        let (reason, message) = send("application/json", "").await.refused(400);
        assert_eq!((reason.as_str(), message), ("BadRequest", format!("{start}unexpected end of JSON input (<empty>)")));
        for body in ["nojson", "[]"] {
            let (reason, message) = send("application/json", body).await.refused(400);
            assert!(reason == "BadRequest" && message.starts_with(start), "{message}");
        }
        let words = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        let (reason, message) = send("text/plain", "{}").await.refused(415);
        assert!(reason == "UnsupportedMediaType" && message.starts_with(words), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_custom_resource_has_to_say_its_kind() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let body = r#"{"metadata":{"name":"a"}}"#;
        let answer = server.raw("POST", &gadgets, &[("content-type", "application/json")], body.into()).await;
        let words = format!("the object provided is unrecognized (must be of type Gadget): Object 'Kind' is missing in '{body}' ({body})");
        assert_eq!(answer.refused(400), ("BadRequest".to_owned(), words));
        let mut other = server.gadget("a", &json!({}));
        other["kind"] = json!("Other");
        let words = format!("Other.{} \"a\" is invalid: kind: Invalid value: \"Other\": must be Gadget", server.group);
        assert_eq!(server.post(&gadgets, &other).await.refused(422), ("Invalid".to_owned(), words));
    })
    .await;
}
