//! Objects as tables: the columns of every kind, what their cells hold, and watches of tables.
use serde_json::{Value, json};

use super::harness::{Server, on_each_server};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The table at a path: one object's or a list's.
async fn table_of(server: &Server, path: &str) -> Value {
    let table = server.get_as(path, TABLE).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    table
}

/// Columns as `name type priority format`, each with a description; and the cells of the first row.
async fn columns_of(server: &Server, path: &str) -> (Vec<String>, Vec<Value>) {
    let table = table_of(server, path).await;
    let columns = table["columnDefinitions"].as_array().unwrap().iter().map(|column| {
        assert!(!column["description"].as_str().unwrap().is_empty(), "{column}");
        let text = |field: &str| column[field].as_str().unwrap().to_owned();
        format!("{} {} {} {}", text("name"), text("type"), column["priority"], text("format")).trim().to_owned()
    });
    (columns.collect(), table["rows"][0]["cells"].as_array().unwrap().clone())
}

/// Makes an object and gives its path.
async fn make(server: &Server, path: &str, object: &Value) -> String {
    server.post(path, object).await.expect(201);
    format!("{path}/{}", object["metadata"]["name"].as_str().unwrap())
}

/// Whether a cell is the age of something that was made just now.
#[track_caller]
fn assert_young(cell: &Value) {
    let age = cell.as_str().unwrap();
    assert!(age.ends_with('s') && age.trim_end_matches('s').parse::<u32>().is_ok(), "{age}");
}

#[tokio::test]
async fn config_maps_and_secrets_are_counted() {
    on_each_server(async |server| {
        let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}, "binaryData": {"z": "AAAA"}});
        let path = make(server, &server.config_maps(), &map).await;
        let (columns, cells) = columns_of(server, &path).await;
        assert_eq!(columns, ["Name string 0 name", "Data string 0", "Age string 0"]);
        assert_eq!(cells[..2], [json!("m"), json!(2)]);
        assert_young(&cells[2]);
        let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b", "c": "d"}});
        let path = make(server, &server.path("api/v1", "secrets"), &secret).await;
        let (columns, cells) = columns_of(server, &path).await;
        assert_eq!(columns, ["Name string 0 name", "Type string 0", "Data string 0", "Age string 0"]);
        assert_eq!(cells[..3], [json!("s"), json!("Opaque"), json!(2)]);
    })
    .await;
}

#[tokio::test]
async fn namespaces_and_definitions_have_their_own_columns() {
    on_each_server(async |server| {
        let (columns, cells) = columns_of(server, &format!("/api/v1/namespaces/{}", server.namespace)).await;
        assert_eq!(columns, ["Name string 0 name", "Status string 0", "Age string 0"]);
        assert_eq!(cells[..2], [json!(server.namespace), json!("Active")]);
        server.gadgets(&json!({"type": "object"})).await;
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.{}", server.group);
        let (columns, cells) = columns_of(server, &path).await;
        assert_eq!(columns, ["Name string 0 name", "Created At date 0"]);
        let made = server.get(&path).await.expect(200)["metadata"]["creationTimestamp"].clone();
        assert_eq!(cells, [json!(format!("gadgets.{}", server.group)), made]);
    })
    .await;
}

#[tokio::test]
async fn service_accounts_and_leases_have_names_and_ages() {
    on_each_server(async |server| {
        let path =
            make(server, &server.path("api/v1", "serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await;
        let (columns, cells) = columns_of(server, &path).await;
        assert_eq!(
            (columns.first().unwrap().as_str(), columns.last().unwrap().as_str()),
            ("Name string 0 name", "Age string 0")
        );
        assert_eq!(cells[0], "robot");
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let held = make(server, &leases, &json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}})).await;
        let (columns, cells) = columns_of(server, &held).await;
        assert_eq!(columns, ["Name string 0 name", "Holder string 0", "Age string 0"]);
        assert_eq!(cells[1], "me");
        let free = make(server, &leases, &json!({"metadata": {"name": "b"}})).await;
        assert_eq!(columns_of(server, &free).await.1[1], "");
    })
    .await;
}

#[tokio::test]
async fn services_show_where_they_are_reached() {
    on_each_server(async |server| {
        let services = server.path("api/v1", "services");
        let headless = json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "None", "selector": {"app": "x", "tier": "y"},
            "ports": [{"name": "web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
        let path = make(server, &services, &headless).await;
        let (columns, cells) = columns_of(server, &path).await;
        let expected = ["Name string 0 name", "Type string 0", "Cluster-IP string 0", "External-IP string 0", "Port(s) string 0",
            "Age string 0", "Selector string 1"];
        assert_eq!(columns, expected);
        assert_eq!(cells[..5], [json!("a"), json!("ClusterIP"), json!("None"), json!("<none>"), json!("80/TCP,53/UDP")]);
        assert_eq!(cells[6], "app=x,tier=y");
        let elsewhere = json!({"metadata": {"name": "b"}, "spec": {"type": "ExternalName", "externalName": "a.example"}});
        let path = make(server, &services, &elsewhere).await;
        let cells = columns_of(server, &path).await.1;
        assert_eq!(cells[1..5], [json!("ExternalName"), json!("<none>"), json!("a.example"), json!("<none>")]);
        assert_eq!(cells[6], "<none>");
    })
    .await;
}

#[tokio::test]
async fn ingresses_show_hosts_addresses_and_ports() {
    on_each_server(async |server| {
        let ingresses = server.path("apis/networking.k8s.io/v1", "ingresses");
        let hosts: Vec<Value> =
            ["a", "b", "c", "d", "e"].iter().map(|h| json!({"host": format!("{h}.example")})).collect();
        let ingress = json!({"metadata": {"name": "many"}, "spec": {"ingressClassName": "nginx", "rules": hosts,
            "tls": [{"hosts": ["a.example"]}]}});
        let path = make(server, &ingresses, &ingress).await;
        let addresses = json!([{"ip": "10.9.8.7"}, {"hostname": "lb.example"}, {"ip": "10.1.1.1"}]);
        server
            .merge(&format!("{path}/status"), &json!({"status": {"loadBalancer": {"ingress": addresses}}}))
            .await
            .expect(200);
        let (columns, cells) = columns_of(server, &path).await;
        let expected = [
            "Name string 0 name",
            "Class string 0",
            "Hosts string 0",
            "Address string 0",
            "Ports string 0",
            "Age string 0",
        ];
        assert_eq!(columns, expected);
        let shown =
            ["many", "nginx", "a.example,b.example,c.example + 2 more...", "10.1.1.1,10.9.8.7,lb.example", "80, 443"];
        assert_eq!(cells[..5], shown.map(|cell| json!(cell)));
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let path =
            make(server, &ingresses, &json!({"metadata": {"name": "none"}, "spec": {"defaultBackend": backend}})).await;
        let cells = columns_of(server, &path).await.1;
        assert_eq!(cells[1..5], ["<none>", "*", "", "80"].map(|cell| json!(cell)));
    })
    .await;
}

#[tokio::test]
async fn ingress_classes_tell_the_default_and_parameters() {
    on_each_server(async |server| {
        let classes = "/apis/networking.k8s.io/v1/ingressclasses";
        let name = server.namespace.clone();
        let class = json!({
            "metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "example.com/c", "parameters": {"apiGroup": "k.example", "kind": "K", "name": "n"}},
        });
        // Only tried: a default class would be given to the ingresses of others.
        let headers = [("content-type", "application/json"), ("accept", TABLE)];
        let tried = async |class: &Value| {
            let path = format!("{classes}?dryRun=All");
            server.raw("POST", &path, &headers, class.to_string().into()).await.expect(201)
        };
        let table = tried(&class).await;
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(cells[..3], [json!(format!("{name} (default)")), json!("example.com/c"), json!("K.k.example/n")]);
        let plain = json!({"metadata": {"name": name}, "spec": {"controller": "example.com/c"}});
        let path = make(server, classes, &plain).await;
        let (columns, cells) = columns_of(server, &path).await;
        assert_eq!(columns, ["Name string 0 name", "Controller string 0", "Parameters string 0", "Age string 0"]);
        assert_eq!(cells[..3], [json!(name), json!("example.com/c"), json!("<none>")]);
        server.delete(&path, &Value::Null).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn events_of_both_versions_read_the_same() {
    on_each_server(async |server| {
        let about = json!({"kind": "ResetPortal", "name": "acme", "namespace": server.namespace, "fieldPath": "spec.host"});
        let old = json!({
            "metadata": {"name": "old"}, "involvedObject": about, "reason": "Why", "message": " words ", "type": "Normal",
            "firstTimestamp": "2020-01-01T00:00:00Z", "lastTimestamp": "2021-01-01T00:00:00Z", "count": 3,
            "source": {"component": "c", "host": "h"},
        });
        let core = make(server, &server.path("api/v1", "events"), &old).await;
        let (columns, cells) = columns_of(server, &core).await;
        let expected = ["Last Seen string 0", "Type string 0", "Reason string 0", "Object string 0", "Subobject string 1",
            "Source string 1", "Message string 0", "First Seen string 1", "Count string 1", "Name string 1 name"];
        assert_eq!(columns, expected);
        assert_eq!(cells[1..7], ["Normal", "Why", "resetportal/acme", "spec.host", "c, h", "words"].map(|cell| json!(cell)));
        assert_eq!(cells[8..], [json!(3), json!("old")]);
        assert!(cells[0].as_str().unwrap().contains('y') && cells[0] != cells[7], "{cells:?}");
        // the other version of it
        let events = server.path("apis/events.k8s.io/v1", "events");
        let (same_columns, same_cells) = columns_of(server, &format!("{events}/old")).await;
        assert_eq!((same_columns, &same_cells[1..7]), (columns, &cells[1..7]));
        // and one that repeats
        let new = json!({
            "metadata": {"name": "new"}, "regarding": {"kind": "Thing", "name": "x", "namespace": server.namespace},
            "reason": "Why", "note": "noted", "type": "Warning", "eventTime": "2020-01-01T00:00:00.000000Z", "action": "Do",
            "reportingController": "rc", "reportingInstance": "ri",
            "series": {"count": 5, "lastObservedTime": "2024-01-01T00:00:00.000000Z"},
        });
        let path = make(server, &events, &new).await;
        let cells = columns_of(server, &path).await.1;
        assert_eq!(cells[1..7], ["Warning", "Why", "thing/x", "", "rc, ri", "noted"].map(|cell| json!(cell)));
        assert_eq!(cells[8], 5);
        assert_ne!(cells[0], cells[7]);
    })
    .await;
}

#[tokio::test]
async fn rows_hold_as_much_of_the_object_as_was_asked_for() {
    on_each_server(async |server| {
        let path = make(server, &server.config_maps(), &json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await;
        let whole = server.get(&path).await.expect(200);
        let table = table_of(server, &path).await;
        assert_eq!(table["metadata"]["resourceVersion"], whole["metadata"]["resourceVersion"]);
        let part =
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]});
        assert_eq!(table["rows"][0]["object"], part);
        assert_eq!(table_of(server, &format!("{path}?includeObject=Metadata")).await["rows"][0]["object"], part);
        assert_eq!(table_of(server, &format!("{path}?includeObject=Object")).await["rows"][0]["object"], whole);
        assert_eq!(
            table_of(server, &format!("{path}?includeObject=None")).await["rows"][0].get("object"),
            Some(&Value::Null)
        );
        for (path, asked) in [(path.clone(), "Nope"), (server.config_maps(), "metadata")] {
            let (reason, message) = server.get_as(&format!("{path}?includeObject={asked}"), TABLE).await.refused(400);
            let words = format!("Invalid value: \"{asked}\": must be 'Metadata', 'Object', 'None', or empty");
            assert_eq!(message, format!("Unable to convert to Table as requested: includeObject: {words}"));
            assert_eq!(reason, "BadRequest");
        }
        // It says nothing where no table is asked for.
        server.get(&format!("{path}?includeObject=Nope")).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_table_of_a_list_pages_like_the_list() {
    on_each_server(async |server| {
        for name in ["a", "b", "c"] {
            let map = json!({"metadata": {"name": name, "labels": {"page": "me"}}});
            make(server, &server.config_maps(), &map).await;
        }
        let path = format!("{}?labelSelector=page&limit=2&includeObject=None", server.config_maps());
        let table = table_of(server, &path).await;
        let names = |table: &Value| {
            let rows = table["rows"].as_array().unwrap().iter();
            rows.map(|row| row["cells"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&table), ["a", "b"]);
        let token = table["metadata"]["continue"].as_str().unwrap();
        let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let rest = table_of(server, &format!("{path}&continue={token}")).await;
        assert_eq!(names(&rest), ["c"]);
        assert!(rest["metadata"]["continue"].is_null(), "{rest}");
        // An empty list has columns, too.
        let none = table_of(server, &format!("{}?labelSelector=page=no", server.config_maps())).await;
        assert_eq!((none["rows"].clone(), none["columnDefinitions"][0]["name"].clone()), (json!([]), json!("Name")));
    })
    .await;
}

/// A definition with these columns, and one object of it with this spec: the path of the object.
async fn printed(server: &Server, columns: &Value, spec: &Value) -> String {
    let any = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let mut version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any}});
    if !columns.is_null() {
        version["additionalPrinterColumns"] = columns.clone();
    }
    let gadgets = server.define(&json!([version])).await;
    make(server, &gadgets, &server.gadget("a", spec)).await
}

#[tokio::test]
async fn custom_resources_without_columns_show_name_and_age() {
    on_each_server(async |server| {
        let path = printed(server, &Value::Null, &json!({})).await;
        let (columns, cells) = columns_of(server, &path).await;
        assert_eq!(columns, ["Name string 0 name", "Age date 0"]);
        assert_eq!(cells[0], "a");
        assert_young(&cells[1]);
    })
    .await;
}

#[tokio::test]
async fn printer_columns_are_shown_as_they_are_defined() {
    on_each_server(async |server| {
        let columns = json!([
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big."},
            {"name": "Word", "type": "string", "jsonPath": ".spec.word", "priority": 1, "format": "byte"},
            {"name": "At", "type": "date", "jsonPath": ".spec.at"},
        ]);
        let path = printed(server, &columns, &json!({"size": 3, "word": "w", "at": "2020-01-01T00:00:00Z"})).await;
        let (shown, cells) = columns_of(server, &path).await;
        assert_eq!(shown, ["Name string 0 name", "Size integer 0", "Word string 1 byte", "At date 0"]);
        assert_eq!(cells[..3], [json!("a"), json!(3), json!("w")]);
        assert!(cells[3].as_str().unwrap().contains('y'), "{cells:?}");
        let table = table_of(server, &path).await;
        let descriptions: Vec<&str> =
            (1..4).map(|at| table["columnDefinitions"][at]["description"].as_str().unwrap()).collect();
        let none = "Custom resource definition column (in JSONPath format): ";
        assert_eq!(descriptions, ["How big.", &format!("{none}.spec.word"), &format!("{none}.spec.at")]);
    })
    .await;
}

#[tokio::test]
async fn a_cell_holds_what_its_type_allows() {
    on_each_server(async |server| {
        let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
        let columns = json!([
            column("A", "string", ".spec.list"), column("B", "string", ".spec.list[*]"), column("C", "string", ".spec.list[1]"),
            column("D", "string", ".spec.map"), column("E", "string", ".spec.conditions[?(@.type==\"Ready\")].status"),
            column("F", "string", ".spec.size"), column("G", "integer", ".spec.word"), column("H", "integer", ".spec.ratio"),
            column("I", "number", ".spec.ratio"), column("J", "boolean", ".spec.on"), column("K", "boolean", ".spec.word"),
            column("L", "date", ".spec.word"), column("M", "date", ".spec.later"), column("N", "string", ".spec.gone"),
            column("O", "string", ".spec.on"), column("P", "date", ".spec.size"), column("Q", "string", ".metadata.labels.x"),
        ]);
        let spec = json!({
            "list": ["a", "b"], "map": {"k": {"z": 1}, "a": "q"}, "size": 3, "word": "w", "ratio": 1.5, "on": true,
            "conditions": [{"type": "Other", "status": "no"}, {"type": "Ready", "status": "True"}], "later": "2999-01-01T00:00:00Z",
        });
        let path = printed(server, &columns, &spec).await;
        let cells = columns_of(server, &path).await.1;
        let expected = json!([
            "a", "[\"a\",\"b\"]", "a", "b", "{\"a\":\"q\",\"k\":{\"z\":1}}", "True", "3", null, 1, 1.5, true, null,
            "<invalid>", "<invalid>", null, "true", null, null,
        ]);
        assert_eq!(json!(cells), expected);
    })
    .await;
}

#[tokio::test]
async fn a_watch_of_tables_tells_the_columns_once() {
    on_each_server(async |server| {
        let list = server.get(&server.config_maps()).await.expect(200);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path = format!("{}?resourceVersion={version}&labelSelector=watch", server.config_maps());
        let mut watch = server.watch_as(&path, TABLE).await;
        assert_eq!(watch.status, 200);
        for name in ["a", "b"] {
            let map = json!({"metadata": {"name": name, "labels": {"watch": "me"}}});
            make(server, &server.config_maps(), &map).await;
        }
        server.delete(&format!("{}/a", server.config_maps()), &Value::Null).await.expect(200);
        let first = watch.next().await.unwrap();
        assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
        assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
        assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
        let object = &first["object"]["rows"][0]["object"];
        assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
        assert_eq!(first["object"]["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
        for (kind, name) in [("ADDED", "b"), ("DELETED", "a")] {
            let next = watch.next().await.unwrap();
            assert_eq!((&next["type"], &next["object"]["rows"][0]["cells"][0]), (&json!(kind), &json!(name)));
            assert_eq!(next["object"]["columnDefinitions"], Value::Null);
        }
    })
    .await;
}

#[tokio::test]
async fn bookmarks_come_in_the_form_of_their_watch() {
    on_each_server(async |server| {
        make(server, &server.path("api/v1", "secrets"), &json!({"metadata": {"name": "a"}})).await;
        let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let path = format!("{}?{streaming}&fieldSelector=metadata.name%3Da", server.path("api/v1", "secrets"));
        let mut watch = server.watch_as(&path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
        let (made, mark) = (watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((&made["type"], &mark["type"]), (&json!("ADDED"), &json!("BOOKMARK")));
        for event in [&made, &mark] {
            assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
            assert_eq!(event["object"]["apiVersion"], "meta.k8s.io/v1");
        }
        assert_eq!(mark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
        let mut watch = server.watch_as(&path, TABLE).await;
        let (made, mark) = (watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((&made["object"]["kind"], &mark["object"]["kind"]), (&json!("Table"), &json!("Table")));
        let marked = &mark["object"]["rows"][0]["object"]["metadata"];
        assert_eq!(marked["annotations"], json!({"k8s.io/initial-events-end": "true"}));
        assert_eq!(mark["object"]["metadata"]["resourceVersion"], marked["resourceVersion"]);
    })
    .await;
}
