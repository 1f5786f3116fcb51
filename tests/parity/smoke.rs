//! The suite's own footing.
use serde_json::json;

use super::on_each_server;

#[tokio::test]
async fn an_object_can_be_made_watched_and_removed() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let list = server.get(&maps).await.expect(200);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        // given a watch from the list's version on
        let only = "fieldSelector=metadata.name%3Dfirst";
        let mut watch = server.watch(&format!("{maps}?resourceVersion={version}&{only}")).await;
        // when an object is made, changed and deleted
        let made = server.post(&maps, &json!({"metadata": {"name": "first"}, "data": {"a": "1"}})).await.expect(201);
        assert_eq!(made["metadata"]["namespace"], *server.namespace);
        server.merge(&format!("{maps}/first"), &json!({"data": {"a": "2"}})).await.expect(200);
        server.delete(&format!("{maps}/first"), &json!({})).await.expect(200);
        // then the watch tells it in this order, and the object is gone
        assert_eq!(watch.told().await, "ADDED first");
        assert_eq!(watch.told().await, "MODIFIED first");
        assert_eq!(watch.told().await, "DELETED first");
        let (reason, message) = server.get(&format!("{maps}/first")).await.refused(404);
        assert_eq!((reason.as_str(), message.as_str()), ("NotFound", "configmaps \"first\" not found"));
    })
    .await;
}
