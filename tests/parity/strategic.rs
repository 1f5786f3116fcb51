//! Strategic merge patches of built-in kinds, with their directives.
use serde_json::{Value, json};

use super::patches::STRATEGIC;
use super::{Server, on_each_server};

impl Server {
    /// A service `a` with two ports; gives its path.
    async fn a_service(&self) -> String {
        let services = self.path("api/v1", "services");
        let ports = json!([{"name": "b", "port": 81}, {"name": "a", "port": 80}]);
        let service = json!({"metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}, "ports": ports}});
        self.post(&services, &service).await.expect(201);
        format!("{services}/a")
    }
}

/// Names of a service's ports.
fn ports(service: &Value) -> Vec<String> {
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    ports.iter().map(|port| format!("{} {}", port["name"].as_str().unwrap_or("-"), port["port"])).collect()
}

#[tokio::test]
async fn strategic_directives_replace_delete_and_retain() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let data = async |patch: Value| server.patch(&map, STRATEGIC, patch).await.expect(200)["data"].clone();
        assert_eq!(data(json!({"data": {"b": null, "c": "3"}})).await, json!({"a": "1", "c": "3"}));
        assert_eq!(data(json!({"data": {"$retainKeys": ["a"], "a": "9"}})).await, json!({"a": "9"}));
        assert_eq!(data(json!({"data": {"$patch": "replace", "only": "1"}})).await, json!({"only": "1"}));
        let answer = server.patch(&map, STRATEGIC, json!({"data": {"$retainKeys": ["a"], "z": "9"}})).await;
        assert_eq!(answer.refused(400), ("BadRequest".to_owned(), "invalid patch format of retainKeys".to_owned()));
        let answer = server.patch(&map, STRATEGIC, json!({"data": {"$patch": "odd"}})).await;
        assert_eq!(answer.refused(500).1, "unknown patch type: odd in map: map[$patch:odd]");
        assert_eq!(data(json!({"data": {"$patch": "delete"}})).await, Value::Null);
    })
    .await;
}

#[tokio::test]
async fn strategic_patches_merge_sets_and_keep_a_wished_order() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let name = |letter: &str| format!("portalkeeper.dev/{letter}");
        let patched = async |patch: Value| server.patch(&map, STRATEGIC, json!({"metadata": patch})).await;
        let finalizers = async |patch: Value| patched(patch).await.expect(200)["metadata"]["finalizers"].clone();
        assert_eq!(finalizers(json!({"finalizers": [name("y")]})).await, json!([name("y"), name("x")]));
        let order = json!({"finalizers": [name("z")], "$setElementOrder/finalizers": [name("z"), name("y")]});
        assert_eq!(finalizers(order).await, json!([name("z"), name("y"), name("x")]));
        let order = json!({"$setElementOrder/finalizers": [name("y"), name("z")]});
        assert_eq!(finalizers(order).await, json!([name("y"), name("z"), name("x")]));
        assert_eq!(finalizers(json!({"$deleteFromPrimitiveList/finalizers": [name("x")]})).await, json!([name("y"), name("z")]));
        let order = json!({"finalizers": [name("q")], "$setElementOrder/finalizers": [name("z")]});
        let words = "The order in patch list:\n[portalkeeper.dev/q]\n doesn't match $setElementOrder list:\n[portalkeeper.dev/z]\n";
        assert_eq!(patched(order).await.refused(500).1, words);
        assert_eq!(finalizers(json!({"finalizers": null})).await, Value::Null);
    })
    .await;
}

#[tokio::test]
async fn strategic_patches_merge_ports_by_number() {
    on_each_server(async |server| {
        let service = server.a_service().await;
        let after =
            async |patch: Value| ports(&server.patch(&service, STRATEGIC, json!({"spec": patch})).await.expect(200));
        assert_eq!(after(json!({"ports": [{"port": 80, "name": "web"}]})).await, ["b 81", "web 80"]);
        assert_eq!(after(json!({"ports": [{"port": 81, "$patch": "delete"}]})).await, ["web 80"]);
        let order =
            json!({"ports": [{"port": 82, "name": "c"}], "$setElementOrder/ports": [{"port": 82}, {"port": 80}]});
        assert_eq!(after(order).await, ["c 82", "web 80"]);
        assert_eq!(after(json!({"ports": [{"port": 83, "name": "d"}, {"$patch": "replace"}]})).await, ["d 83"]);
        let answer = server.patch(&service, STRATEGIC, json!({"spec": {"ports": [{"name": "b"}]}})).await;
        assert_eq!(answer.refused(500).1, "map: map[name:b] does not contain declared merge key: port");
    })
    .await;
}

#[tokio::test]
async fn strategic_patches_merge_owners_and_a_service_accounts_secrets() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let owner = |uid: &str| json!({"uid": uid, "name": "n", "kind": "K", "apiVersion": "example.com/v1"});
        let patch = json!({"metadata": {"ownerReferences": [owner("u1"), owner("u2")]}});
        server.patch(&map, STRATEGIC, patch).await.expect(200);
        let patch = json!({"metadata": {"ownerReferences": [{"uid": "u1", "$patch": "delete"}]}});
        let patched = server.patch(&map, STRATEGIC, patch).await.expect(200);
        assert_eq!(patched["metadata"]["ownerReferences"], json!([owner("u2")]));

        let accounts = server.path("api/v1", "serviceaccounts");
        let account =
            json!({"metadata": {"name": "s"}, "secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "a"}]});
        server.post(&accounts, &account).await.expect(201);
        let patch = json!({"secrets": [{"name": "z"}], "imagePullSecrets": [{"name": "z"}]});
        let patched = server.patch(&format!("{accounts}/s"), STRATEGIC, patch).await.expect(200);
        assert_eq!(patched["secrets"], json!([{"name": "z"}, {"name": "a"}]));
        assert_eq!(patched["imagePullSecrets"], json!([{"name": "z"}]));
    })
    .await;
}
