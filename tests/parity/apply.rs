//! Server-side apply: who wins, what goes when it is no longer applied, and what is refused.
use serde_json::{Value, json};

use super::managed::{owner, owners, schema};
use super::{Server, on_each_server};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Server {
    fn map_config(&self, data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
    }
}

#[tokio::test]
async fn applying_makes_an_object_and_changes_it_later() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        let made = server.apply(&path, "m", &server.map_config(json!({"k": "1"}))).await.expect(201);
        let again = server.apply(&path, "m", &server.map_config(json!({"k": "1"}))).await.expect(200);
        assert_eq!(made["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
        let changed = server.apply(&path, "m", &server.map_config(json!({"k": "2"}))).await.expect(200);
        assert_eq!(changed["data"], json!({"k": "2"}));
        assert_ne!(changed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    })
    .await;
}

#[tokio::test]
async fn a_single_conflict_names_its_manager_and_field() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        server.apply(&path, "one", &server.gadget("a", &json!({"a": "1"}))).await.expect(201);
        let answer = server.apply(&path, "two", &server.gadget("a", &json!({"a": "2", "b": "2"}))).await;
        let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.a"});
        assert_eq!(answer.body["details"], json!({"causes": [cause]}));
        let words = "Apply failed with 1 conflict: conflict with \"one\": .spec.a";
        assert_eq!(answer.refused(409), ("Conflict".to_owned(), words.to_owned()));
        assert_eq!(server.get(&path).await.expect(200)["spec"]["b"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn several_conflicts_are_listed_by_manager() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        let spec = json!({"a": "1", "atom": {"k": "v"}, "map": [{"id": "i", "v": "1"}]});
        server.apply(&path, "one", &server.gadget("a", &spec)).await.expect(201);
        server.apply(&path, "two", &server.gadget("a", &json!({"a": "1"}))).await.expect(200);
        let spec = json!({"a": "2", "atom": {"k": "w"}, "map": [{"id": "i", "v": "2"}]});
        let answer = server.apply(&path, "three", &server.gadget("a", &spec)).await;
        assert_eq!(answer.body["details"]["causes"].as_array().map(Vec::len), Some(4));
        let words = "Apply failed with 4 conflicts: conflicts with \"one\":\n- .spec.a\n- .spec.atom\n- .spec.map[id=\"i\"].v\nconflicts with \"two\":\n- .spec.a";
        assert_eq!(answer.refused(409).1, words);
    })
    .await;
}

#[tokio::test]
async fn a_conflict_with_an_updater_says_in_which_version() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        server.post(&format!("{gadgets}?fieldManager=u"), &server.gadget("a", &json!({"a": "1"}))).await.expect(201);
        let answer = server.apply(&path, "m", &server.gadget("a", &json!({"a": "2"}))).await;
        let words = format!("Apply failed with 1 conflict: conflict with \"u\" using {}/v1: .spec.a", server.group);
        assert_eq!(answer.refused(409).1, words);
        // the same for the status, which is named
        server.merge(&format!("{path}/status?fieldManager=s"), &json!({"status": {"phase": "1"}})).await.expect(200);
        let mut config = server.gadget("a", &Value::Null);
        config.as_object_mut().unwrap().remove("spec");
        config["status"] = json!({"phase": "2"});
        let answer = server.apply(&format!("{path}/status"), "m", &config).await;
        let words = format!(
            "Apply failed with 1 conflict: conflict with \"s\" with subresource \"status\" using {}/v1: .status.phase",
            server.group
        );
        assert_eq!(answer.refused(409).1, words);
    })
    .await;
}

#[tokio::test]
async fn force_takes_fields_over() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        server.apply(&path, "one", &server.gadget("a", &json!({"a": "1", "b": "1"}))).await.expect(201);
        let forced = server
            .apply(&format!("{path}?force=true"), "two", &server.gadget("a", &json!({"a": "2"})))
            .await
            .expect(200);
        assert_eq!((&forced["spec"]["a"], &forced["spec"]["b"]), (&json!("2"), &json!("1")));
        let expected = [
            owner("one", "Apply", json!({"f:spec": {"f:b": {}}})),
            owner("two", "Apply", json!({"f:spec": {"f:a": {}}})),
        ];
        assert_eq!(owners(&forced), expected);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_longer_applied_goes_unless_it_is_shared() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        let one = json!({"a": "1", "b": "1", "texts": {"x": "1"}, "set": ["p", "q"], "map": [{"id": "i", "v": "1"}, {"id": "j"}]});
        server.apply(&path, "one", &server.gadget("a", &one)).await.expect(201);
        let two = json!({"a": "1", "set": ["q", "r"], "map": [{"id": "i", "w": "2"}]});
        server.apply(&path, "two", &server.gadget("a", &two)).await.expect(200);
        let left = server.apply(&path, "one", &server.gadget("a", &json!({}))).await.expect(200);
        assert_eq!(left["spec"]["a"], "1");
        assert_eq!((&left["spec"]["b"], &left["spec"]["set"]), (&Value::Null, &json!(["q", "r"])));
        assert_eq!(left["spec"]["map"], json!([{"id": "i", "w": "2"}]));
        // The two are in the order of their times, which are whole seconds.
        assert!(owners(&left).iter().any(|owner| owner.0 == "two"), "{left}");
        let left = server.apply(&path, "two", &server.gadget("a", &json!({"a": "1"}))).await.expect(200);
        assert_eq!(left["spec"]["a"], "1");
        assert!(left["spec"]["map"].as_array().is_none_or(Vec::is_empty), "{left}");
        assert!(left["spec"]["set"].as_array().is_none_or(Vec::is_empty), "{left}");
    })
    .await;
}

#[tokio::test]
async fn what_an_updater_set_stays_when_it_is_no_longer_applied() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        server.apply(&path, "m", &server.map_config(json!({"k": "1", "l": "1"}))).await.expect(201);
        server.merge(&format!("{path}?fieldManager=u"), &json!({"data": {"k": "2"}})).await.expect(200);
        let left = server.apply(&path, "m", &server.map_config(json!({}))).await.expect(200);
        assert_eq!(left["data"], json!({"k": "2"}));
    })
    .await;
}

#[tokio::test]
async fn defaulted_fields_are_nobodys_and_come_back() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        server.apply(&path, "m", &server.gadget("a", &json!({"a": "1", "d": "own"}))).await.expect(201);
        let left = server.apply(&path, "m", &server.gadget("a", &json!({"a": "1"}))).await.expect(200);
        assert_eq!(left["spec"], json!({"a": "1", "d": "given"}));
        assert_eq!(owners(&left), [owner("m", "Apply", json!({"f:spec": {"f:a": {}}}))]);
        // and nobody has to be asked to set them
        let set = server.apply(&path, "other", &server.gadget("a", &json!({"d": "other"}))).await.expect(200);
        assert_eq!(set["spec"]["d"], "other");
    })
    .await;
}

#[tokio::test]
async fn each_kind_of_list_and_map_merges_in_its_way() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        let one = json!({"set": ["p", "q"], "map": [{"id": "i", "v": "1"}, {"id": "j", "v": "1"}],
            "texts": {"k": "v"}, "things": {"o": {"x": "1"}}, "sub": {"x": "1"}});
        server.apply(&path, "one", &server.gadget("a", &one)).await.expect(201);
        let two = json!({"set": ["r", "q"], "map": [{"id": "k", "v": "2"}, {"id": "i", "w": "2"}],
            "texts": {"l": "w"}, "things": {"p": {"x": "2"}}, "sub": {"y": "2"}});
        let merged = server.apply(&path, "two", &server.gadget("a", &two)).await.expect(200);
        let spec = &merged["spec"];
        assert_eq!(spec["set"], json!(["p", "r", "q"]));
        assert_eq!(spec["map"], json!([{"id": "k", "v": "2"}, {"id": "i", "v": "1", "w": "2"}, {"id": "j", "v": "1"}]));
        assert_eq!(spec["texts"], json!({"k": "v", "l": "w"}));
        assert_eq!(spec["things"], json!({"o": {"x": "1"}, "p": {"x": "2"}}));
        assert_eq!(spec["sub"], json!({"x": "1", "y": "2"}));
    })
    .await;
}

#[tokio::test]
async fn atomic_lists_and_maps_are_fought_over_as_a_whole() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        let one = json!({"list": ["x"], "atom": {"k": "v"}});
        server.apply(&path, "one", &server.gadget("a", &one)).await.expect(201);
        for (config, field) in
            [(json!({"list": ["x", "y"]}), ".spec.list"), (json!({"atom": {"l": "w"}}), ".spec.atom")]
        {
            let answer = server.apply(&path, "two", &server.gadget("a", &config)).await;
            assert_eq!(answer.refused(409).1, format!("Apply failed with 1 conflict: conflict with \"one\": {field}"));
            let forced =
                server.apply(&format!("{path}?force=true"), "two", &server.gadget("a", &config)).await.expect(200);
            let (name, value) = config.as_object().unwrap().iter().next().unwrap();
            assert_eq!(forced["spec"][name], *value);
        }
    })
    .await;
}

#[tokio::test]
async fn the_status_is_applied_apart() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let path = format!("{gadgets}/a");
        let mut config = server.gadget("a", &json!({"a": "1"}));
        config["status"] = json!({"phase": "ignored"});
        let made = server.apply(&path, "m", &config).await.expect(201);
        assert_eq!(made["status"], Value::Null);
        assert_eq!(owners(&made), [owner("m", "Apply", json!({"f:spec": {"f:a": {}}}))]);
        config["spec"]["a"] = json!("ignored");
        config["metadata"]["labels"] = json!({"ignored": "1"});
        config["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let applied = server.apply(&format!("{path}/status"), "m", &config).await.expect(200);
        assert_eq!((&applied["spec"]["a"], &applied["metadata"]["labels"]), (&json!("1"), &Value::Null));
        assert_eq!(applied["metadata"]["generation"], 1);
        let fields =
            json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}}});
        let own = ("m".to_owned(), "Apply".to_owned(), "status".to_owned(), fields);
        assert!(owners(&applied).contains(&own), "{applied}");
        // another condition beside it
        config["status"] = json!({"conditions": [{"type": "Live", "status": "False"}]});
        let applied = server.apply(&format!("{path}/status"), "n", &config).await.expect(200);
        let kinds: Vec<_> =
            applied["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
        assert_eq!(kinds, [json!("Ready"), json!("Live")]);
    })
    .await;
}

#[tokio::test]
async fn a_status_cannot_be_applied_to_what_is_not_there() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let mut config = server.gadget("none", &json!({}));
        config["status"] = json!({"phase": "1"});
        let answer = server.apply(&format!("{gadgets}/none/status"), "m", &config).await;
        assert_eq!(answer.refused(404).1, format!("gadgets.{} \"none\" not found", server.group));
    })
    .await;
}

#[tokio::test]
async fn configurations_of_another_kind_or_place_are_refused() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        let undeterminable = "the name of the object (a based on URL) was undeterminable: name must be provided";
        let cases = [
            (json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}), "invalid object type: /v1, Kind=Secret"),
            (json!({"apiVersion": "x/v2", "kind": "ConfigMap", "metadata": {"name": "a"}}), "invalid object type: x/v2, Kind=ConfigMap"),
            (json!({"metadata": {"name": "a"}}), "invalid object type: /, Kind="),
            (json!({"apiVersion": "v1", "kind": "ConfigMap"}), undeterminable),
            (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}), "the name of the object (b) does not match the name on the URL (a)"),
            (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}), "the namespace of the provided object does not match the namespace sent on the request"),
            (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": []}}), "metadata.managedFields must be nil"),
            (json!([1]), "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ];
        for (config, words) in cases {
            let answer = server.apply(&path, "m", &config).await;
            assert_eq!(answer.refused(400), ("BadRequest".to_owned(), words.to_owned()), "{config}");
        }
        let answer = server.call("PATCH", &path, "application/apply-patch+yaml", &server.map_config(json!({}))).await;
        let words = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        assert_eq!(answer.refused(422), ("Invalid".to_owned(), words.to_owned()));
    })
    .await;
}

#[tokio::test]
async fn configurations_that_do_not_fit_the_type_are_refused() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let keyless = "element 0: associative list with keys has an element that omits all key fields [\"id\"] (and doesn't have default values for any key fields)";
        let cases = [
            (json!({"nope": 1}), ".spec.nope: field not declared in schema".to_owned()),
            (json!({"a": 1}), ".spec.a: expected string, got &value.valueUnstructured{Value:1}".to_owned()),
            (json!({"n": "x"}), ".spec.n: expected numeric (int or float), got string".to_owned()),
            (json!({"sub": []}), ".spec.sub: expected map, got &{[]}".to_owned()),
            (json!({"list": "x"}), ".spec.list: expected list, got &{x}".to_owned()),
            (json!({"set": ["x", "x"]}), ".spec.set: duplicate entries for key [=\"x\"]".to_owned()),
            (json!({"map": [{"id": "1"}, {"id": "1"}]}), ".spec.map: duplicate entries for key [id=\"1\"]".to_owned()),
            (json!({"map": [{"v": "1"}]}), format!(".spec.map: {keyless}")),
        ];
        for (spec, words) in cases {
            let answer = server.apply(&format!("{gadgets}/a"), "m", &server.gadget("a", &spec)).await;
            let about = format!("/a; {}/v1, Kind=Gadget", server.group);
            assert_eq!(answer.refused(500).1, format!("failed to create typed patch object ({about}): {words}"));
        }
        let path = format!("{}/a", server.config_maps());
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "immutable": "x"});
        let words = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .immutable: expected boolean, got &{x}";
        assert_eq!(server.apply(&path, "m", &config).await.refused(500).1, words);
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "nope": "x"});
        let words = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .nope: field not declared in schema";
        assert_eq!(server.apply(&path, "m", &config).await.refused(500).1, words);
    })
    .await;
}

#[tokio::test]
async fn a_configuration_with_an_older_version_conflicts() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        let made = server.apply(&path, "m", &server.map_config(json!({"k": "1"}))).await.expect(201);
        let mut config = server.map_config(json!({"k": "2"}));
        config["metadata"]["resourceVersion"] = json!("1");
        let words = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
        assert_eq!(server.apply(&path, "m", &config).await.refused(409), ("Conflict".to_owned(), words.to_owned()));
        config["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        server.apply(&path, "m", &config).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_configuration_with_a_uid_is_only_for_that_object() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        let mut config = server.map_config(json!({"k": "1"}));
        config["metadata"]["uid"] = json!("5");
        let words = "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid 5, and no existing object was found";
        assert_eq!(server.apply(&path, "m", &config).await.refused(409), ("Conflict".to_owned(), words.to_owned()));
        server.apply(&path, "m", &server.map_config(json!({"k": "1"}))).await.expect(201);
        let words = "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"5\": field is immutable";
        assert_eq!(server.apply(&path, "m", &config).await.refused(422), ("Invalid".to_owned(), words.to_owned()));
    })
    .await;
}

#[tokio::test]
async fn repeated_keys_in_yaml_are_told_or_refused() {
    on_each_server(async |server| {
        let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: \"1\"\n  k: \"2\"\n";
        let path = |validation: &str| format!("{}/a?fieldManager=m&fieldValidation={validation}", server.config_maps());
        let headers = [("content-type", "application/apply-patch+yaml")];
        let refused = server.raw("PATCH", &path("Strict"), &headers, body.into()).await;
        let words = "error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"k\" already set in map";
        assert_eq!(refused.refused(400), ("BadRequest".to_owned(), format!("error strict decoding YAML: {words}")));
        let told = server.raw("PATCH", &path("Warn"), &headers, body.into()).await;
        assert!(
            told.warnings().iter().any(|text| text.contains("line 7: key \\\"k\\\" already set in map")),
            "{:?}",
            told.warnings()
        );
        assert_eq!(told.expect(201)["data"], json!({"k": "2"}));
        let silent = server.raw("PATCH", &path("Ignore"), &headers, body.into()).await;
        assert_eq!(silent.warnings(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn what_kubectl_applied_on_the_client_side_it_may_apply_on_the_server() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.config_maps());
        // given an object that kubectl has applied on the client's side
        let mut sent = server.map_config(json!({"k": "1", "l": "1"}));
        let annotation = sent.to_string();
        sent["metadata"]["annotations"] = json!({LAST_APPLIED: annotation});
        server
            .post(&format!("{}?fieldManager=kubectl-client-side-apply", server.config_maps()), &sent)
            .await
            .expect(201);
        // when another tool applies a change, it conflicts; when kubectl does, it does not
        let config = server.map_config(json!({"k": "2"}));
        assert_eq!(server.apply(&path, "tool", &config).await.refused(409).0, "Conflict");
        let applied = server.apply(&path, "kubectl", &config).await.expect(200);
        // then the annotation follows
        assert_eq!(applied["data"]["k"], "2");
        let annotation = applied["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(
            annotation,
            format!(
                "{}\n",
                json!({"apiVersion": "v1", "data": {"k": "2"}, "kind": "ConfigMap", "metadata": {"name": "a"}})
            )
        );
        // but what somebody changed since then is fought over
        server.merge(&format!("{path}?fieldManager=u"), &json!({"data": {"l": "9"}})).await.expect(200);
        let answer = server.apply(&path, "kubectl", &server.map_config(json!({"k": "2", "l": "3"}))).await;
        assert_eq!(answer.refused(409).1, "Apply failed with 1 conflict: conflict with \"u\" using v1: .data.l");
    })
    .await;
}

#[tokio::test]
async fn service_ports_are_told_apart_by_port_and_protocol() {
    on_each_server(async |server| {
        let path = format!("{}/a", server.path("api/v1", "services"));
        let config = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports}});
        let made = server.apply(&path, "one", &config(json!([{"name": "dns", "port": 53}]))).await.expect(201);
        let fields = json!({"f:spec": {"f:ports": {"k:{\"port\":53,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}}});
        assert_eq!(owners(&made), [owner("one", "Apply", fields)]);
        let second = config(json!([{"name": "dns-udp", "port": 53, "protocol": "UDP"}]));
        let merged = server.apply(&path, "two", &second).await.expect(200);
        assert_eq!(merged["spec"]["ports"].as_array().map(Vec::len), Some(2));
        let left = server.apply(&path, "one", &config(json!([{"name": "web", "port": 80}]))).await.expect(200);
        let names: Vec<_> = left["spec"]["ports"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&json!("web")) && names.contains(&json!("dns-udp")), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn applying_in_another_version_is_still_the_same_manager() {
    on_each_server(async |server| {
        let version = |name: &str, storage: bool| {
            json!({
                "name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema()},
            })
        };
        let first = server.define(&json!([version("v1", true), version("v2", false)])).await;
        let second = first.replace("/v1/", "/v2/");
        server.until("the second version is served", async || server.get(&second).await.status == 200).await;
        server.apply(&format!("{first}/a"), "m", &server.gadget("a", &json!({"a": "1", "b": "1"}))).await.expect(201);
        let mut config = server.gadget("a", &json!({"a": "2"}));
        config["apiVersion"] = json!(format!("{}/v2", server.group));
        let applied = server.apply(&format!("{second}/a"), "m", &config).await.expect(200);
        assert_eq!(applied["spec"], json!({"a": "2", "d": "given"}));
        assert_eq!(applied["apiVersion"], format!("{}/v2", server.group));
        assert_eq!(owners(&applied), [owner("m", "Apply", json!({"f:spec": {"f:a": {}}}))]);
        assert_eq!(applied["metadata"]["managedFields"][0]["apiVersion"], format!("{}/v2", server.group));
        // and the other version shows the same
        let found = server.get(&format!("{first}/a")).await.expect(200);
        assert_eq!((&found["spec"], &found["apiVersion"]), (&applied["spec"], &json!(format!("{}/v1", server.group))));
    })
    .await;
}
