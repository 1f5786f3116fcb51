//! Objects as tables and as bare metadata, which is what kubectl and controllers ask for. Pure.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalog::{Column, Resource};

/// The form in which an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    Table,
    Metadata,
}

impl Form {
    /// The first form of an Accept header that is offered; anything else gets whole objects.
    pub fn wanted(accept: &str) -> Self {
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
                continue;
            }
            let mut asked = None;
            let mut offered = true;
            for part in parts {
                match part.split_once('=') {
                    Some(("as", kind)) => asked = Some(kind),
                    Some(("v", version)) => offered &= version == "v1",
                    Some(("g", group)) => offered &= group == "meta.k8s.io",
                    _ => {}
                }
            }
            match asked {
                None => return Self::Whole,
                Some("Table") if offered => return Self::Table,
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") if offered => return Self::Metadata,
                Some(_) => {}
            }
        }
        Self::Whole
    }
}

/// Only `apiVersion`, `kind` and `metadata`.
pub fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

type Cell = fn(&Value, Timestamp) -> Value;

/// Name, type, priority and content of a built-in's columns.
fn built_in(resource: &Resource) -> Vec<(&'static str, &'static str, i64, Cell)> {
    let name: (&str, &str, i64, Cell) = ("Name", "string", 0, |o, _| o["metadata"]["name"].clone());
    let age: (&str, &str, i64, Cell) =
        ("Age", "string", 0, |o, now| json!(since(&o["metadata"]["creationTimestamp"], now)));
    match resource.kind.as_str() {
        "Namespace" => vec![name, ("Status", "string", 0, |o, _| o["status"]["phase"].clone()), age],
        "Secret" => vec![
            name,
            ("Type", "string", 0, |o, _| o["type"].clone()),
            ("Data", "string", 0, |o, _| json!(length(&o["data"]))),
            age,
        ],
        "ConfigMap" => {
            vec![name, ("Data", "string", 0, |o, _| json!(length(&o["data"]) + length(&o["binaryData"]))), age]
        }
        "ServiceAccount" => vec![name, ("Secrets", "string", 0, |o, _| json!(length(&o["secrets"]))), age],
        "Lease" => vec![name, ("Holder", "string", 0, |o, _| o["spec"]["holderIdentity"].clone()), age],
        "CustomResourceDefinition" => {
            vec![name, ("Created At", "date", 0, |o, _| o["metadata"]["creationTimestamp"].clone())]
        }
        "IngressClass" => vec![name, ("Controller", "string", 0, |o, _| o["spec"]["controller"].clone()), age],
        "Ingress" => vec![
            name,
            ("Class", "string", 0, |o, _| or_none(&o["spec"]["ingressClassName"])),
            ("Hosts", "string", 0, |o, _| json!(joined(&o["spec"]["rules"], |rule| &rule["host"], "*"))),
            ("Address", "string", 0, |o, _| {
                json!(joined(
                    &o["status"]["loadBalancer"]["ingress"],
                    |at| if at["ip"].is_null() { &at["hostname"] } else { &at["ip"] },
                    ""
                ))
            }),
            ("Ports", "string", 0, |o, _| json!(if o["spec"]["tls"].is_array() { "80, 443" } else { "80" })),
            age,
        ],
        "Service" => vec![
            name,
            ("Type", "string", 0, |o, _| o["spec"]["type"].as_str().map_or(json!("ClusterIP"), |t| json!(t))),
            ("Cluster-IP", "string", 0, |o, _| or_none(&o["spec"]["clusterIP"])),
            ("Port(s)", "string", 0, |o, _| json!(ports(&o["spec"]["ports"]))),
            age,
        ],
        "Event" => vec![
            ("Last Seen", "string", 0, |o, now| json!(since(last_seen(o), now))),
            ("Type", "string", 0, |o, _| o["type"].clone()),
            ("Reason", "string", 0, |o, _| o["reason"].clone()),
            ("Object", "string", 0, |o, _| {
                let about = if o["involvedObject"].is_null() { &o["regarding"] } else { &o["involvedObject"] };
                let kind = about["kind"].as_str().unwrap_or_default().to_lowercase();
                json!(format!("{kind}/{}", about["name"].as_str().unwrap_or_default()))
            }),
            (
                "Message",
                "string",
                0,
                |o, _| if o["message"].is_null() { o["note"].clone() } else { o["message"].clone() },
            ),
            ("Name", "string", 1, |o, _| o["metadata"]["name"].clone()),
        ],
        _ => vec![name, age],
    }
}

fn length(value: &Value) -> usize {
    value.as_object().map(serde_json::Map::len).or_else(|| value.as_array().map(Vec::len)).unwrap_or(0)
}

fn or_none(value: &Value) -> Value {
    if value.is_null() { json!("<none>") } else { value.clone() }
}

fn joined<'a>(list: &'a Value, field: fn(&'a Value) -> &'a Value, otherwise: &str) -> String {
    let words = list.as_array().into_iter().flatten().map(|item| field(item).as_str().unwrap_or(otherwise));
    words.collect::<Vec<_>>().join(",")
}

fn ports(list: &Value) -> String {
    let words =
        list.as_array().into_iter().flatten().map(|port| {
            format!("{}/{}", port["port"].as_u64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP"))
        });
    words.collect::<Vec<_>>().join(",")
}

/// When an event happened last.
fn last_seen(event: &Value) -> &Value {
    let places = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["deprecatedLastTimestamp"],
        &event["eventTime"],
    ];
    places.into_iter().find(|time| time.is_string()).unwrap_or(&event["metadata"]["creationTimestamp"])
}

/// A table of these objects. `definitions` may be left out of later events of a watch.
pub fn table(resource: &Resource, objects: &[&Value], list: &Value, include: &str, now: Timestamp) -> Value {
    let (columns, rows): (Vec<Value>, Vec<Value>) = if resource.is_custom() {
        let default = [Column {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            description: "Time since the object was made.".to_owned(),
            priority: 0,
            path: ".metadata.creationTimestamp".to_owned(),
        }];
        let own = if resource.columns.is_empty() { &default[..] } else { &resource.columns };
        let mut columns = vec![
            json!({"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0}),
        ];
        columns.extend(own.iter().map(|c| {
            let kind = if c.kind == "date" { "string" } else { &c.kind };
            json!({"name": c.name, "type": kind, "format": "", "description": c.description, "priority": c.priority})
        }));
        let cells = |object: &Value| {
            let own = own.iter().map(|column| cell(column, object, now));
            std::iter::once(object["metadata"]["name"].clone()).chain(own).collect::<Vec<_>>()
        };
        (columns, objects.iter().map(|object| row(&cells(object), object, include)).collect())
    } else {
        let own = built_in(resource);
        let columns = own.iter().map(|(name, kind, priority, _)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
        });
        let cells = |object: &Value| own.iter().map(|(.., content)| content(object, now)).collect::<Vec<_>>();
        (columns.collect(), objects.iter().map(|object| row(&cells(object), object, include)).collect())
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list, "columnDefinitions": columns, "rows": rows,
    })
}

fn row(cells: &[Value], object: &Value, include: &str) -> Value {
    let mut row = json!({"cells": cells});
    match include {
        "None" => {}
        "Object" => row["object"] = object.clone(),
        _ => row["object"] = metadata(object),
    }
    row
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let Some(found) = super::jsonpath::find(&column.path, object) else { return Value::Null };
    match column.kind.as_str() {
        "date" => json!(since(found, now)),
        "string" if !found.is_string() => json!(found.to_string()),
        _ => found.clone(),
    }
}

/// Time since a timestamp, as kubectl writes it.
fn since(time: &Value, now: Timestamp) -> String {
    match time.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) => short(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

fn short(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offered_form_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(Form::wanted(table), Form::Table);
        assert_eq!(Form::wanted("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Form::Metadata);
        assert_eq!(Form::wanted("application/vnd.kubernetes.protobuf,application/json"), Form::Whole);
        assert_eq!(Form::wanted("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"), Form::Whole);
        assert_eq!(Form::wanted(""), Form::Whole);
    }

    #[test]
    fn ages_read_as_in_kubectl() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (135, "2m15s"),
            (700, "11m"),
            (10_800, "3h"),
            (12_660, "3h31m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (900_000, "10d"),
            (80_000_000, "2y195d"),
        ] {
            assert_eq!(short(seconds), text, "{seconds}");
        }
    }
}
