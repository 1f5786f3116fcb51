//! Events in both of their versions, and leases as leaders are elected by.
use serde_json::{Value, json};

use super::{Server, on_each_server};

const TIME: &str = "2026-11-25T09:00:00.000000Z";

fn core(server: &Server) -> String {
    server.path("api/v1", "events")
}

fn newer(server: &Server) -> String {
    server.path("apis/events.k8s.io/v1", "events")
}

/// A complete event of the newer version.
fn event(server: &Server, name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "eventTime": TIME, "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "Do", "reason": "Done", "type": "Normal", "note": "words",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": server.namespace, "name": "x"},
    })
}

fn without_metadata(mut object: Value) -> Value {
    object.as_object_mut().unwrap().remove("metadata");
    object
}

#[tokio::test]
async fn an_event_is_one_object_in_two_forms() {
    on_each_server(async |server| {
        let regarding = event(server, "e")["regarding"].clone();
        let made = server.post(&newer(server), &event(server, "e")).await.expect(201);
        assert_eq!(
            without_metadata(made),
            json!({
                "kind": "Event", "apiVersion": "events.k8s.io/v1", "eventTime": TIME, "reportingController": "example.com/c",
                "reportingInstance": "i", "action": "Do", "reason": "Done", "type": "Normal", "note": "words",
                "regarding": regarding, "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null,
            })
        );
        let old = server.get(&format!("{}/e", core(server))).await.expect(200);
        assert_eq!(
            without_metadata(old),
            json!({
                "kind": "Event", "apiVersion": "v1", "eventTime": TIME, "reportingComponent": "example.com/c",
                "reportingInstance": "i", "action": "Do", "reason": "Done", "type": "Normal", "message": "words",
                "involvedObject": regarding, "source": {}, "firstTimestamp": null, "lastTimestamp": null,
            })
        );
    })
    .await;
}

#[tokio::test]
async fn a_core_event_may_be_of_the_old_kind() {
    on_each_server(async |server| {
        let involved = event(server, "e")["regarding"].clone();
        let body = json!({
            "metadata": {"name": "e"}, "involvedObject": involved, "reason": "R", "message": "m", "type": "Normal",
            "source": {"component": "k"}, "firstTimestamp": "2026-11-25T09:00:00Z", "lastTimestamp": "2026-11-25T09:00:01Z", "count": 3,
        });
        let made = server.post(&core(server), &body).await.expect(201);
        assert_eq!((&made["eventTime"], &made["reportingComponent"]), (&Value::Null, &json!("")));
        assert_eq!((&made["count"], &made["source"]["component"]), (&json!(3), &json!("k")));
        let new = server.get(&format!("{}/e", newer(server))).await.expect(200);
        assert_eq!((&new["deprecatedCount"], &new["deprecatedSource"]), (&json!(3), &json!({"component": "k"})));
        assert_eq!((&new["note"], &new["deprecatedLastTimestamp"]), (&json!("m"), &json!("2026-11-25T09:00:01Z")));
        // its count goes on
        let after = server.merge(&format!("{}/e", core(server)), &json!({"count": 4})).await.expect(200);
        assert_eq!(after["count"], 4);
    })
    .await;
}

#[tokio::test]
async fn an_event_of_the_newer_version_is_complete() {
    on_each_server(async |server| {
        let refused = async |field: &str| {
            let mut body = event(server, "e");
            body.as_object_mut().unwrap().remove(field);
            server.post(&newer(server), &body).await.refused(422).1
        };
        for field in ["eventTime", "reportingInstance", "action", "reason"] {
            assert_eq!(refused(field).await, format!("Event \"e\" is invalid: {field}: Required value"));
        }
        assert_eq!(refused("type").await, "Event \"e\" is invalid: type: Invalid value: \"\": has invalid value: ");
        let controller = refused("reportingController").await;
        assert!(
            controller.starts_with("Event \"e\" is invalid: [reportingController: Required value, "),
            "{controller}"
        );
        let mut body = event(server, "e");
        body["note"] = json!("n".repeat(1025));
        let (_, message) = server.post(&newer(server), &body).await.refused(422);
        assert_eq!(message, "Event \"e\" is invalid: message: Invalid value: \"\": can have at most 1024 characters");
        let mut body = event(server, "e");
        body["deprecatedCount"] = json!(3);
        let (_, message) = server.post(&newer(server), &body).await.refused(422);
        assert_eq!(message, "Event \"e\" is invalid: count: Invalid value: \"\": needs to be unset");
    })
    .await;
}

#[tokio::test]
async fn an_event_is_in_the_namespace_of_what_it_is_about() {
    on_each_server(async |server| {
        for involved in [json!({"kind": "Foo", "name": "x"}), json!({"kind": "Foo", "name": "x", "namespace": "other"})]
        {
            let namespace = involved["namespace"].as_str().unwrap_or_default();
            let body = json!({"metadata": {"name": "e"}, "involvedObject": involved});
            let (_, message) = server.post(&core(server), &body).await.refused(422);
            let words =
                format!("involvedObject.namespace: Invalid value: \"{namespace}\": does not match event.namespace");
            assert_eq!(message, format!("Event \"e\" is invalid: {words}"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeated_event_grows_a_series_and_nothing_else() {
    on_each_server(async |server| {
        server.post(&newer(server), &event(server, "e")).await.expect(201);
        let path = format!("{}/e", newer(server));
        for count in [2, 3] {
            let series = json!({"count": count, "lastObservedTime": format!("2026-11-25T09:00:0{count}.000000Z")});
            let after = server.merge(&path, &json!({"series": series})).await.expect(200);
            assert_eq!(after["series"], series);
        }
        let (_, message) = server.merge(&path, &json!({"note": "other"})).await.refused(422);
        assert_eq!(message, "Event \"e\" is invalid: message: Invalid value: \"other\": field is immutable");
        let (_, message) = server.merge(&path, &json!({"reason": "Other"})).await.refused(422);
        assert_eq!(message, "Event \"e\" is invalid: reason: Invalid value: \"Other\": field is immutable");
        let mut once = event(server, "once");
        once["series"] = json!({"count": 1, "lastObservedTime": TIME});
        let (_, message) = server.post(&newer(server), &once).await.refused(422);
        assert_eq!(message, "Event \"once\" is invalid: series.count: Invalid value: \"\": should be at least 2");
    })
    .await;
}

#[tokio::test]
async fn events_are_found_by_what_they_are_about() {
    on_each_server(async |server| {
        server.post(&newer(server), &event(server, "e")).await.expect(201);
        let mut other = event(server, "other");
        other["regarding"]["name"] = json!("y");
        server.post(&newer(server), &other).await.expect(201);
        let names = async |path: String, field: &str| {
            let list = server.get(&format!("{path}?fieldSelector={field}")).await.expect(200);
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(core(server), "involvedObject.name%3Dx").await, ["e"]);
        assert_eq!(names(newer(server), "regarding.name%3Dy").await, ["other"]);
        assert_eq!(names(core(server), "source%3Dexample.com%2Fc,reason%3DDone").await.len(), 2);
        assert_eq!(names(core(server), "type%3DWarning").await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn one_of_many_makes_a_lease() {
    on_each_server(async |server| {
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let tries = (0..8).map(|n| {
            let leases = leases.clone();
            async move {
                let spec = json!({"holderIdentity": format!("h{n}"), "leaseDurationSeconds": 15, "renewTime": TIME});
                (n, server.post(&leases, &json!({"metadata": {"name": "leader"}, "spec": spec})).await.status)
            }
        });
        let answers = futures_util::future::join_all(tries).await;
        let winners: Vec<_> = answers.iter().filter(|(_, status)| *status == 201).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|(_, status)| *status == 409).count(), 7);
        let lease = server.get(&format!("{leases}/leader")).await.expect(200);
        assert_eq!(lease["spec"]["holderIdentity"], format!("h{}", winners[0].0));
    })
    .await;
}

#[tokio::test]
async fn one_of_many_takes_over_a_lease() {
    on_each_server(async |server| {
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let spec =
            json!({"holderIdentity": "gone", "leaseDurationSeconds": 15, "leaseTransitions": 0, "renewTime": TIME});
        let held = server.post(&leases, &json!({"metadata": {"name": "leader"}, "spec": spec})).await.expect(201);
        // when eight that have seen the same lease try to replace it
        let tries = (0..8).map(|n| {
            let mut mine = held.clone();
            mine["spec"]["holderIdentity"] = json!(format!("h{n}"));
            mine["spec"]["leaseTransitions"] = json!(1);
            let path = format!("{leases}/leader");
            async move { (n, server.put(&path, &mine).await) }
        });
        let answers = futures_util::future::join_all(tries).await;
        let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.status == 200).map(|(n, _)| *n).collect();
        assert_eq!(winners.len(), 1);
        for (_, lost) in answers.into_iter().filter(|(_, answer)| answer.status != 200) {
            assert_eq!(lost.refused(409).0, "Conflict");
        }
        let lease = server.get(&format!("{leases}/leader")).await.expect(200);
        assert_eq!(lease["spec"]["holderIdentity"], format!("h{}", winners[0]));
        // and a lease is not replaced blindly
        let blind = json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "blind"}});
        let refused = server.put(&format!("{leases}/leader"), &blind).await.expect(422);
        assert_eq!(refused["details"]["causes"][0]["field"], "metadata.resourceVersion");
    })
    .await;
}
