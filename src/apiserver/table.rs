//! Objects as tables and as bare metadata, which is what kubectl and controllers ask for. Pure.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalog::{Column, Resource};
use super::columns;

/// The form in which an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    Table,
    Metadata,
}

/// Only `apiVersion`, `kind` and `metadata`.
pub fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A table of these objects.
pub fn table(resource: &Resource, objects: &[&Value], list: &Value, include: &str, now: Timestamp) -> Value {
    let (columns, rows): (Vec<Value>, Vec<Value>) = if resource.is_custom() {
        custom(resource, objects, include, now)
    } else {
        let own = columns::of(resource);
        let definitions = own.iter().map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
        });
        let cells = |object: &Value| own.iter().map(|column| (column.cell)(object, now)).collect::<Vec<_>>();
        (definitions.collect(), objects.iter().map(|object| row(&cells(object), object, include)).collect())
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list, "columnDefinitions": columns, "rows": rows,
    })
}

/// Columns and rows of a custom resource: those of its definition, or else its age.
fn custom(resource: &Resource, objects: &[&Value], include: &str, now: Timestamp) -> (Vec<Value>, Vec<Value>) {
    let default = [Column {
        name: "Age".to_owned(),
        kind: "date".to_owned(),
        description: columns::about_age().to_owned(),
        priority: 0,
        format: String::new(),
        path: ".metadata.creationTimestamp".to_owned(),
    }];
    let own = if resource.columns.is_empty() { &default[..] } else { &resource.columns };
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "description": columns::about_name(), "priority": 0,
    });
    let others = own.iter().map(|c| {
        let description = match c.description.as_str() {
            "" => format!("Custom resource definition column (in JSONPath format): {}", c.path),
            given => given.to_owned(),
        };
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": description, "priority": c.priority})
    });
    let cells = |object: &Value| {
        let own = own.iter().map(|column| cell(column, object, now));
        std::iter::once(object["metadata"]["name"].clone()).chain(own).collect::<Vec<_>>()
    };
    let rows = objects.iter().map(|object| row(&cells(object), object, include)).collect();
    (std::iter::once(name).chain(others).collect(), rows)
}

fn row(cells: &[Value], object: &Value, include: &str) -> Value {
    let shown = match include {
        "None" => Value::Null,
        "Object" => object.clone(),
        _ => metadata(object),
    };
    json!({"cells": cells, "object": shown})
}

/// What a column shows of an object; `null` where there is nothing, or something of another type.
fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let Some(found) = super::jsonpath::find(&column.path, object).filter(|found| !found.is_null()) else {
        return Value::Null;
    };
    match (column.kind.as_str(), found) {
        ("string", Value::String(_)) => found.clone(),
        ("string", other) => json!(other.to_string()),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|n| n as i64)).map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
        ("date", Value::String(time)) => match time.parse::<Timestamp>() {
            Ok(_) => json!(since(found, now)),
            Err(_) => json!("<invalid>"),
        },
        _ => Value::Null,
    }
}

/// Time since a timestamp, as kubectl writes it.
pub fn since(time: &Value, now: Timestamp) -> String {
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
