//! Watches: where they begin, what they tell, how they end.
use serde_json::{Value, json};

use super::harness::Watch;
use super::{Server, on_each_server};

async fn given(server: &Server, name: &str, app: &str) {
    let body = json!({"metadata": {"name": name, "labels": {"mine": "", "app": app}}});
    server.post(&server.config_maps(), &body).await.expect(201);
}

async fn version(server: &Server) -> String {
    let list = server.get(&mine(server, "")).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn mine(server: &Server, parameters: &str) -> String {
    format!("{}?labelSelector=mine&{parameters}", server.config_maps())
}

/// What is told until the watch ends by itself.
async fn all(mut watch: Watch) -> Vec<String> {
    assert_eq!(watch.status, 200);
    let mut told = Vec::new();
    while let Some(event) = watch.next().await {
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        told.push(format!("{} {name}", event["type"].as_str().unwrap()).trim().to_owned());
    }
    told
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_exists() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        given(server, "b", "x").await;
        for parameters in ["timeoutSeconds=1", "timeoutSeconds=1&limit=1"] {
            let told = all(server.watch(&mine(server, parameters)).await).await;
            assert_eq!(told, ["ADDED a", "ADDED b"], "{}", server.name);
        }
        server
            .until("any version has them", async || {
                all(server.watch(&mine(server, "timeoutSeconds=1&resourceVersion=0")).await).await
                    == ["ADDED a", "ADDED b"]
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_from_a_version_tells_what_came_after_it() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        let since = version(server).await;
        given(server, "b", "x").await;
        server.merge(&format!("{}/a", server.config_maps()), &json!({"data": {"k": "1"}})).await.expect(200);
        let mut watch = server.watch(&mine(server, &format!("resourceVersion={since}"))).await;
        assert_eq!(watch.told().await, "ADDED b");
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["data"]["k"]), (&json!("MODIFIED"), &json!("1")));
        assert_eq!((&event["object"]["kind"], &event["object"]["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
        // and goes on from the version of an event
        let seen = event["object"]["metadata"]["resourceVersion"].as_str().unwrap();
        server.delete(&format!("{}/b", server.config_maps()), &json!({})).await.expect(200);
        assert_eq!(watch.told().await, "DELETED b");
        let mut later = server.watch(&mine(server, &format!("resourceVersion={seen}"))).await;
        assert_eq!(later.told().await, "DELETED b");
    })
    .await;
}

#[tokio::test]
async fn a_deletion_has_a_version_of_its_own() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let body =
            json!({"metadata": {"name": "w", "labels": {"mine": ""}, "finalizers": ["a.b/c"]}, "data": {"a": "1"}});
        server.post(&maps, &body).await.expect(201);
        let since = version(server).await;
        let marked = server.delete(&format!("{maps}/w"), &json!({})).await.expect(200);
        server
            .merge(&format!("{maps}/w"), &json!({"metadata": {"finalizers": null}, "data": {"a": "2"}}))
            .await
            .expect(200);
        let mut watch = server.watch(&mine(server, &format!("resourceVersion={since}"))).await;
        assert_eq!(watch.told().await, "MODIFIED w");
        // it shows the last stored state, not the write that ended it
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["data"]["a"]), (&json!("DELETED"), &json!("1")));
        let number = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(number(&event["object"]) > number(&marked));
    })
    .await;
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        let since = version(server).await;
        let only = format!("{}?labelSelector=mine,app%3Dx&resourceVersion={since}", server.config_maps());
        let mut watch = server.watch(&only).await;
        let label = async |app: &str| {
            let body = json!({"metadata": {"labels": {"app": app}}});
            server.merge(&format!("{}/a", server.config_maps()), &body).await.expect(200)
        };
        let left = label("y").await;
        label("z").await;
        label("x").await;
        server.delete(&format!("{}/a", server.config_maps()), &json!({})).await.expect(200);
        // what leaves is shown as it was, with the version at which it left
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "DELETED");
        assert_eq!(event["object"]["metadata"]["labels"]["app"], "x");
        assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
        assert_eq!(watch.told().await, "ADDED a");
        assert_eq!(watch.told().await, "DELETED a");
    })
    .await;
}

#[tokio::test]
async fn one_object_is_watched_by_its_name() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        given(server, "b", "x").await;
        let path = format!("{}?fieldSelector=metadata.name%3Db&timeoutSeconds=1", server.config_maps());
        assert_eq!(all(server.watch(&path).await).await, ["ADDED b"]);
        // a watch of an object's own path is a plain read
        let found = server.get(&format!("{}/a?watch=true", server.config_maps())).await.expect(200);
        assert_eq!(found["kind"], "ConfigMap");
    })
    .await;
}

#[tokio::test]
async fn a_watch_over_all_namespaces_tells_where() {
    on_each_server(async |server| {
        let since = version(server).await;
        let selector = format!("mine%3D{}", server.namespace);
        let mut watch =
            server.watch(&format!("/api/v1/configmaps?labelSelector={selector}&resourceVersion={since}")).await;
        let body = json!({"metadata": {"name": "a", "labels": {"mine": server.namespace}}});
        server.post(&server.config_maps(), &body).await.expect(201);
        let event = watch.next().await.unwrap();
        assert_eq!(event["object"]["metadata"]["namespace"], server.namespace);
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up() {
    on_each_server(async |server| {
        let since = version(server).await;
        let began = std::time::Instant::now();
        assert_eq!(
            all(server.watch(&mine(server, &format!("resourceVersion={since}&timeoutSeconds=1"))).await).await,
            [""; 0]
        );
        assert!(began.elapsed().as_millis() >= 900, "{:?}", began.elapsed());
        let refused = server.get(&mine(server, "watch=true&timeoutSeconds=x")).await;
        assert_eq!(refused.refused(400).1, "strconv.ParseInt: parsing \"x\": invalid syntax");
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_none_is_refused() {
    on_each_server(async |server| {
        let (reason, message) = server.get(&mine(server, "watch=true&resourceVersion=x")).await.refused(500);
        let words = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
        assert_eq!((reason.as_str(), message.as_str()), ("", words));
    })
    .await;
}

/// The parameters of a streaming list.
const STREAMING: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

#[tokio::test]
async fn a_streaming_list_marks_the_end_of_what_exists() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        let since = version(server).await;
        for from in ["", "&resourceVersion=0", &format!("&resourceVersion={since}")] {
            let parameters = format!("{STREAMING}&allowWatchBookmarks=true{from}");
            let mut watch = server.watch(&mine(server, &parameters)).await;
            assert_eq!(watch.told().await, "ADDED a", "{} {from}", server.name);
            let end = watch.next().await.unwrap();
            assert_eq!(end["type"], "BOOKMARK");
            let object = &end["object"];
            assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
            assert_eq!(object["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
            let marked: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(marked >= since.parse().unwrap());
            let fields: Vec<&String> = object["metadata"].as_object().unwrap().keys().collect();
            assert_eq!(fields.len(), 2, "{object}");
        }
        // what happens afterwards follows
        let mut watch = server.watch(&mine(server, &format!("{STREAMING}&allowWatchBookmarks=true"))).await;
        assert_eq!((watch.told().await, watch.told().await), ("ADDED a".to_owned(), "BOOKMARK".to_owned()));
        given(server, "b", "x").await;
        assert_eq!(watch.told().await, "ADDED b");
    })
    .await;
}

#[tokio::test]
async fn a_streaming_list_of_a_version_that_there_is_not_yet_is_told_so() {
    on_each_server(async |server| {
        let future = version(server).await.parse::<u64>().unwrap() + 1_000_000;
        let mut watch = server.watch(&mine(server, &format!("{STREAMING}&resourceVersion={future}"))).await;
        assert_eq!(watch.status, 200);
        let event = watch.next().await.unwrap();
        let status = &event["object"];
        assert_eq!(
            (&event["type"], &status["code"], &status["reason"]),
            (&json!("ERROR"), &json!(504), &json!("Timeout"))
        );
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("Timeout: Too large resource version: {future}, current: ")), "{message}");
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_streaming_list_without_bookmarks_marks_nothing() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        let told = all(server.watch(&mine(server, &format!("{STREAMING}&timeoutSeconds=1"))).await).await;
        assert_eq!(told, ["ADDED a"]);
    })
    .await;
}

#[tokio::test]
async fn a_watch_can_do_without_what_exists() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        let since = version(server).await;
        for from in ["", "&resourceVersion=0", &format!("&resourceVersion={since}")] {
            let parameters =
                format!("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&timeoutSeconds=1{from}");
            let told = all(server.watch(&mine(server, &parameters)).await).await;
            assert_eq!(told, [""; 0], "{} {from}", server.name);
        }
    })
    .await;
}

#[tokio::test]
async fn what_does_not_go_together_is_refused() {
    on_each_server(async |server| {
        let field = "resourceVersionMatch: Forbidden";
        for (parameters, words) in [
            (
                "resourceVersionMatch=NotOlderThan",
                format!("{field}: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
            ),
            (
                "sendInitialEvents=true",
                format!("{field}: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
            ),
            (
                "sendInitialEvents=false",
                format!("{field}: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=Exact",
                format!(
                    "[{field}: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported \
                     value: \"Exact\": supported values: \"NotOlderThan\"]"
                ),
            ),
            ("continue=x", format!("{field}: resourceVersionMatch is forbidden when continue is provided")),
        ] {
            let (reason, message) = server.get(&mine(server, &format!("watch=true&{parameters}"))).await.refused(422);
            assert_eq!(reason, "Invalid");
            assert_eq!(message, format!("ListOptions.meta.k8s.io \"\" is invalid: {words}"), "{parameters}");
        }
    })
    .await;
}

#[tokio::test]
async fn watches_can_be_asked_for_the_old_way() {
    on_each_server(async |server| {
        given(server, "a", "x").await;
        given(server, "b", "y").await;
        let old = format!("/api/v1/watch/namespaces/{}/configmaps", server.namespace);
        let watch = async |path: String| all(server.watch(&path).await).await;
        assert_eq!(watch(format!("{old}?labelSelector=mine&timeoutSeconds=1")).await, ["ADDED a", "ADDED b"]);
        assert_eq!(watch(format!("{old}/b?timeoutSeconds=1")).await, ["ADDED b"]);
        assert_eq!(watch(format!("{old}/none?timeoutSeconds=1")).await, [""; 0]);
        let own = format!("/api/v1/watch/namespaces/{}?timeoutSeconds=1", server.namespace);
        assert_eq!(watch(own).await, [format!("ADDED {}", server.namespace)]);
        let leases =
            format!("/apis/coordination.k8s.io/v1/watch/namespaces/{}/leases?timeoutSeconds=1", server.namespace);
        assert_eq!(watch(leases).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn every_watcher_sees_every_change_in_the_same_order() {
    on_each_server(async |server| {
        let since = version(server).await;
        let path = mine(server, &format!("resourceVersion={since}"));
        let mut watches = Vec::new();
        for _ in 0..4 {
            watches.push(server.watch(&path).await);
        }
        // when several clients write at once
        let writers = ["a", "b", "c"].map(async |name| {
            given(server, name, "x").await;
            for n in 0..5 {
                let body = json!({"data": {"n": n.to_string()}});
                server.merge(&format!("{}/{name}", server.config_maps()), &body).await.expect(200);
            }
        });
        futures_util::future::join_all(writers).await;
        // then each watcher is told the same 18 events, with growing versions
        let mut stories = Vec::new();
        for watch in &mut watches {
            let mut story = Vec::new();
            for _ in 0..18 {
                let event = watch.next().await.unwrap();
                let metadata = &event["object"]["metadata"];
                story.push((
                    metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap(),
                    metadata["name"].clone(),
                ));
            }
            assert!(story.is_sorted_by_key(|(version, _)| *version));
            stories.push(story);
        }
        assert!(stories.iter().all(|story| *story == stories[0]));
    })
    .await;
}
