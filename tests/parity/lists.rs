//! Lists: pages, versions, and what cannot be asked.
use serde_json::{Value, json};

use super::{Server, on_each_server};

/// ConfigMaps `l0` and so on with the label `mine`; the version of a list of them.
async fn given(server: &Server, count: usize) -> String {
    for n in 0..count {
        let body = json!({"metadata": {"name": format!("l{n}"), "labels": {"mine": ""}}});
        server.post(&server.config_maps(), &body).await.expect(201);
    }
    let list = server.get(&format!("{}?labelSelector=mine", server.config_maps())).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn mine(server: &Server, parameters: &str) -> String {
    format!("{}?labelSelector=mine&{parameters}", server.config_maps())
}

#[tokio::test]
async fn items_of_a_built_in_list_do_not_repeat_their_kind() {
    on_each_server(async |server| {
        given(server, 1).await;
        let list = server.get(&mine(server, "")).await.expect(200);
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
        assert_eq!((&list["items"][0]["kind"], &list["items"][0]["apiVersion"]), (&Value::Null, &Value::Null));
        let gadgets = server.gadgets(&json!({"type": "object"})).await;
        server.post(&gadgets, &server.gadget("g", &Value::Null)).await.expect(201);
        let list = server.get(&gadgets).await.expect(200);
        assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("GadgetList"), &json!("Gadget")));
        assert_eq!(list["items"][0]["apiVersion"], format!("{}/v1", server.group));
    })
    .await;
}

#[tokio::test]
async fn a_list_is_in_the_order_of_names() {
    on_each_server(async |server| {
        for name in ["b", "a-b", "a", "a.b", "c"] {
            let body = json!({"metadata": {"name": name, "labels": {"mine": ""}}});
            server.post(&server.config_maps(), &body).await.expect(201);
        }
        let list = server.get(&mine(server, "")).await.expect(200);
        assert_eq!(names(&list), ["a", "a-b", "a.b", "b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn pages_are_of_one_version() {
    on_each_server(async |server| {
        given(server, 5).await;
        let first = server.get(&mine(server, "limit=2")).await.expect(200);
        assert_eq!(names(&first), ["l0", "l1"]);
        // what happens between the pages does not show in them
        server.delete(&format!("{}/l4", server.config_maps()), &json!({})).await.expect(200);
        given_late(server).await;
        let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
        // the token says of which version
        let version = first["metadata"]["resourceVersion"].as_str().unwrap();
        let both = mine(server, &format!("limit=2&continue={token}&resourceVersion={version}"));
        let words = "specifying resource version is not allowed when using continue";
        assert_eq!(server.get(&both).await.refused(400), ("BadRequest".to_owned(), words.to_owned()));
        let second = server.get(&mine(server, &format!("limit=2&continue={token}"))).await.expect(200);
        assert_eq!(names(&second), ["l2", "l3"]);
        assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        let token = second["metadata"]["continue"].as_str().unwrap();
        let third = server.get(&mine(server, &format!("limit=2&continue={token}"))).await.expect(200);
        assert_eq!((names(&third), &third["metadata"]["continue"]), (vec!["l4"], &Value::Null));
    })
    .await;
}

async fn given_late(server: &Server) {
    let late = json!({"metadata": {"name": "l9", "labels": {"mine": ""}}});
    server.post(&server.config_maps(), &late).await.expect(201);
}

#[tokio::test]
async fn a_page_says_how_much_is_left_if_nothing_is_selected() {
    on_each_server(async |server| {
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        for n in 0..3 {
            server
                .post(&leases, &json!({"metadata": {"name": format!("l{n}"), "labels": {"a": "b"}}}))
                .await
                .expect(201);
        }
        let page = server.get(&format!("{leases}?limit=1")).await.expect(200);
        assert_eq!(page["metadata"]["remainingItemCount"], 2);
        let page = server.get(&format!("{leases}?limit=1&labelSelector=a")).await.expect(200);
        assert!(page["metadata"]["continue"].is_string());
        assert_eq!(page["metadata"]["remainingItemCount"], Value::Null);
        let whole = server.get(&format!("{leases}?limit=3")).await.expect(200);
        assert_eq!(
            (&whole["metadata"]["continue"], &whole["metadata"]["remainingItemCount"]),
            (&Value::Null, &Value::Null)
        );
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_a_number_and_negative_is_none() {
    on_each_server(async |server| {
        given(server, 2).await;
        let refused = async |limit: &str| server.get(&mine(server, &format!("limit={limit}"))).await.refused(400).1;
        assert_eq!(refused("x").await, "strconv.ParseInt: parsing \"x\": invalid syntax");
        let huge = "99999999999999999999";
        assert_eq!(refused(huge).await, format!("strconv.ParseInt: parsing \"{huge}\": value out of range"));
        assert_eq!(names(&server.get(&mine(server, "limit=-1")).await.expect(200)).len(), 2);
        assert_eq!(names(&server.get(&mine(server, "limit=0")).await.expect(200)).len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_none_is_refused() {
    on_each_server(async |server| {
        let (reason, message) = server.get(&mine(server, "limit=1&continue=x")).await.refused(400);
        assert_eq!(reason, "BadRequest");
        assert!(message.starts_with("invalid continue token: continue key is not valid"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn any_version_is_answered_whole() {
    on_each_server(async |server| {
        given(server, 3).await;
        server
            .until("the cache has seen them", async || {
                names(&server.get(&mine(server, "resourceVersion=0")).await.expect(200)).len() == 3
            })
            .await;
        let list = server.get(&mine(server, "resourceVersion=0&limit=1")).await.expect(200);
        assert_eq!((names(&list).len(), &list["metadata"]["continue"]), (3, &Value::Null));
    })
    .await;
}

#[tokio::test]
async fn a_list_can_be_of_an_exact_version() {
    on_each_server(async |server| {
        let version = given(server, 3).await;
        let maps = server.config_maps();
        server.delete(&format!("{maps}/l0"), &json!({})).await.expect(200);
        server.merge(&format!("{maps}/l1"), &json!({"data": {"a": "new"}})).await.expect(200);
        given_late(server).await;
        let then = server
            .get(&mine(server, &format!("resourceVersion={version}&resourceVersionMatch=Exact")))
            .await
            .expect(200);
        assert_eq!(names(&then), ["l0", "l1", "l2"]);
        assert_eq!(then["metadata"]["resourceVersion"], version);
        assert_eq!(then["items"][1]["data"], Value::Null);
        // pages of a version are exact as well
        let page = server.get(&mine(server, &format!("resourceVersion={version}&limit=1"))).await.expect(200);
        assert_eq!((names(&page), &page["metadata"]["resourceVersion"]), (vec!["l0"], &json!(version)));
        // at least as new as a version is now
        let now = server.get(&mine(server, &format!("resourceVersion={version}"))).await.expect(200);
        assert_eq!(names(&now), ["l1", "l2", "l9"]);
        let same =
            server.get(&mine(server, &format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan"))).await;
        assert_eq!(names(&same.expect(200)), ["l1", "l2", "l9"]);
    })
    .await;
}

#[tokio::test]
async fn a_version_is_a_number() {
    on_each_server(async |server| {
        given(server, 1).await;
        let words = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
        let (reason, message) = server.get(&mine(server, "resourceVersion=x")).await.refused(400);
        assert_eq!((reason.as_str(), message), ("BadRequest", format!("invalid resource version: {words}")));
        let (reason, message) =
            server.get(&format!("{}/l0?resourceVersion=x", server.config_maps())).await.refused(500);
        assert_eq!((reason.as_str(), message.as_str()), ("", words));
    })
    .await;
}

#[tokio::test]
async fn what_does_not_go_together_is_refused() {
    on_each_server(async |server| {
        for (parameters, words) in [
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Bogus",
                "resourceVersionMatch: Unsupported value: \"Bogus\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Exact&continue=x",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
            ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ] {
            let (reason, message) = server.get(&mine(server, parameters)).await.refused(422);
            assert_eq!(reason, "Invalid");
            assert_eq!(message, format!("ListOptions.meta.k8s.io \"\" is invalid: {words}"), "{parameters}");
        }
    })
    .await;
}
