//! Label and field selectors.
use serde_json::{Value, json};

use super::{Server, on_each_server};

/// Percent-encodes a selector.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// ConfigMaps `s0` to `s3`: `n` is the number, `app` is `x` for odd ones and `y` for even ones, `s3` has no `tier`.
async fn given_four(server: &Server) {
    for n in 0..4 {
        let mut labels = json!({"app": if n % 2 == 1 { "x" } else { "y" }, "n": n.to_string(), "tier": "", "mine": ""});
        if n == 3 {
            labels.as_object_mut().unwrap().remove("tier");
        }
        server
            .post(&server.config_maps(), &json!({"metadata": {"name": format!("s{n}"), "labels": labels}}))
            .await
            .expect(201);
    }
}

/// Names of the listed objects that carry the label `mine`.
async fn listed(server: &Server, labels: &str, fields: &str) -> Vec<String> {
    let path = format!("{}?labelSelector={}&fieldSelector={}", server.config_maps(), encoded(labels), encoded(fields));
    let list = server.get(&path).await.expect(200);
    let mine = list["items"].as_array().unwrap().iter().filter(|item| !item["metadata"]["labels"]["mine"].is_null());
    mine.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn labels_select_by_being_there_and_by_value() {
    on_each_server(async |server| {
        given_four(server).await;
        let all = ["s0", "s1", "s2", "s3"];
        for (selector, expected) in [
            ("app", &all[..]),
            ("!app", &[]),
            ("!tier", &["s3"]),
            ("app=x", &["s1", "s3"]),
            ("app==x", &["s1", "s3"]),
            ("app!=x", &["s0", "s2"]),
            ("app = x ", &["s1", "s3"]),
            ("tier=", &["s0", "s1", "s2"]),
            ("tier!=", &["s3"]),
            ("gone!=x", &all[..]),
            ("app=x,n=1", &["s1"]),
            ("app=x,app=y", &[]),
        ] {
            assert_eq!(listed(server, selector, "").await, expected, "{}: {selector}", server.name);
        }
    })
    .await;
}

#[tokio::test]
async fn labels_select_by_sets_and_order() {
    on_each_server(async |server| {
        given_four(server).await;
        for (selector, expected) in [
            ("app in (x,y),n in (0, 3)", &["s0", "s3"][..]),
            ("app in(x)", &["s1", "s3"]),
            ("app notin (x),mine", &["s0", "s2"]),
            ("gone notin (x),mine", &["s0", "s1", "s2", "s3"]),
            ("tier in ()", &["s0", "s1", "s2"]),
            ("n in (1,)", &["s1"]),
            ("n>1", &["s2", "s3"]),
            ("n<1", &["s0"]),
            ("n > 0,n < 3", &["s1", "s2"]),
            ("app>1", &[]),
        ] {
            assert_eq!(listed(server, selector, "").await, expected, "{}: {selector}", server.name);
        }
    })
    .await;
}

#[tokio::test]
async fn a_label_selector_that_cannot_be_read_is_refused() {
    on_each_server(async |server| {
        for (selector, words) in [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("app in", "unable to parse requirement: found '' expected: '('"),
            ("app in x", "unable to parse requirement: found 'x' expected: '('"),
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("app=x y", "found 'y', expected: ',' or 'end of string'"),
            ("app=(x)", "unable to parse requirement: found '(', expected: identifier"),
            ("app===x", "unable to parse requirement: found '=', expected: identifier"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "n>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            let answer = server.get(&format!("{}?labelSelector={}", server.config_maps(), encoded(selector))).await;
            assert_eq!(answer.refused(400), ("BadRequest".to_owned(), words.to_owned()), "{}: {selector}", server.name);
        }
    })
    .await;
}

#[tokio::test]
async fn keys_and_values_of_a_selector_are_ones_that_labels_can_have() {
    on_each_server(async |server| {
        let refused = async |selector: &str| {
            let answer = server.get(&format!("{}?labelSelector={}", server.config_maps(), encoded(selector))).await;
            answer.refused(400).1
        };
        let words = refused("a=@").await;
        assert!(
            words.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"@\": a valid label must"),
            "{words}"
        );
        let words = refused("-a").await;
        assert!(
            words.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"),
            "{words}"
        );
        let words = refused("a/b/c=x").await;
        assert!(words.contains("<nil>: Invalid value: \"a/b/c\": a valid label key must consist of"), "{words}");
    })
    .await;
}

#[tokio::test]
async fn fields_select_by_name_and_namespace() {
    on_each_server(async |server| {
        given_four(server).await;
        let here = format!("metadata.namespace={}", server.namespace);
        assert_eq!(listed(server, "", "metadata.name=s1").await, ["s1"]);
        assert_eq!(listed(server, "", "metadata.name==s1").await, ["s1"]);
        assert_eq!(listed(server, "", "metadata.name!=s1").await, ["s0", "s2", "s3"]);
        assert_eq!(listed(server, "app=x", "metadata.name!=s1").await, ["s3"]);
        assert_eq!(listed(server, "", &here).await.len(), 4);
        assert_eq!(listed(server, "", "metadata.namespace=elsewhere").await.len(), 0);
        assert_eq!(listed(server, "", "metadata.name=s1,metadata.name=s2").await.len(), 0);
        assert_eq!(listed(server, "", "metadata.name=a\\=b").await.len(), 0);
        assert_eq!(listed(server, "", ",").await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_field_selector_that_cannot_be_read_is_refused() {
    on_each_server(async |server| {
        for (selector, words) in [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
            ("metadata.name=a\\", "invalid field selector: invalid escape sequence: \\"),
            ("data.a=x", "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
            (
                " metadata.name=x",
                "\" metadata.name\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
        ] {
            for watch in ["", "&watch=true"] {
                let path = format!("{}?fieldSelector={}{watch}", server.config_maps(), encoded(selector));
                let refused = server.get(&path).await.refused(400);
                assert_eq!(refused, ("BadRequest".to_owned(), words.to_owned()), "{}: {selector}", server.name);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn each_kind_is_selected_by_its_own_fields() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
        let events = server.path("api/v1", "events");
        let newer = server.path("apis/events.k8s.io/v1", "events");
        let known = [
            (server.path("api/v1", "secrets"), "type"),
            (server.path("api/v1", "services"), "spec.type"),
            (server.path("api/v1", "services"), "spec.clusterIP"),
            ("/api/v1/namespaces".to_owned(), "status.phase"),
            (events.clone(), "involvedObject.uid"),
            (events.clone(), "reportingComponent"),
            (events.clone(), "source"),
            (newer.clone(), "regarding.name"),
            (newer.clone(), "reportingController"),
            (gadgets.clone(), "metadata.namespace"),
        ];
        for (path, field) in known {
            let list = server.get(&format!("{path}?fieldSelector={field}%3Dnothing")).await.expect(200);
            assert_eq!(list["items"].as_array().unwrap().len(), 0, "{path} {field}");
        }
        let unknown = [
            (server.path("api/v1", "secrets"), "metadata.uid"),
            ("/api/v1/namespaces".to_owned(), "metadata.namespace"),
            (events, "regarding.name"),
            (newer, "involvedObject.name"),
            (gadgets, "spec.x"),
        ];
        for (path, field) in unknown {
            let refused = server.get(&format!("{path}?fieldSelector={field}%3Dnothing")).await.refused(400);
            assert_eq!(refused.1, format!("field label not supported: {field}"), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn secrets_are_selected_by_type() {
    on_each_server(async |server| {
        let secrets = server.path("api/v1", "secrets");
        for (name, kind) in [("a", "my/own"), ("b", "Opaque")] {
            server.post(&secrets, &json!({"metadata": {"name": name}, "type": kind})).await.expect(201);
        }
        let list = server.get(&format!("{secrets}?fieldSelector=type%3Dmy%2Fown")).await.expect(200);
        let names: Vec<&Value> =
            list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        assert_eq!(names, ["a"]);
    })
    .await;
}
