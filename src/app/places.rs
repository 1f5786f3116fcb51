//! Where the fields of YAML documents stand, so that a refusal can name the line. Pure.
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Lines of one document's fields, by paths like `spec.list[0].name`; the document itself is the empty path.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Places(BTreeMap<String, u64>);

impl Places {
    /// One for each document of a text; nothing for a text that is not YAML.
    pub fn of(text: &str) -> Vec<Self> {
        let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple(text).unwrap_or_default();
        documents
            .into_iter()
            .map(|document| {
                let mut lines = BTreeMap::new();
                collect(document, String::new(), &mut lines);
                Self(lines)
            })
            .collect()
    }

    /// The line of a field, or of the nearest one around it that is written down. Counted from 1.
    pub fn line(&self, path: &str) -> u64 {
        let mut path = path.trim_start_matches('.');
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None if path.is_empty() => return 1,
                None => path = "",
            }
        }
    }
}

/// A value as far as it has places.
enum Node {
    Map(Vec<(String, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Scalar,
}

fn collect(node: Spanned<Node>, path: String, lines: &mut BTreeMap<String, u64>) {
    match node.value {
        Node::Map(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                collect(value, path, lines);
            }
        }
        Node::List(items) => {
            for (index, item) in items.into_iter().enumerate() {
                collect(item, format!("{path}[{index}]"), lines);
            }
        }
        Node::Scalar => {}
    }
    lines.insert(path, node.referenced.line());
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            fields.push((name, map.next_value()?));
        }
        Ok(Node::Map(fields))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Node::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_lines_they_stand_in() {
        let text = "kind: A\nspec:\n  list:\n  - name: x\n    value: 1\n  - name: y\n  deep:\n    a: {b: 2}\n---\n# two\nkind: B\n";
        let [first, second] = Places::of(text).try_into().unwrap();
        for (path, line) in [
            ("kind", 1),
            ("spec.list[0].value", 5),
            ("spec.list[1].name", 6),
            ("spec.deep.a.b", 8),
            // what is not written down is told by what is around it
            ("spec.list[1].missing", 6),
            ("spec.deep.missing", 8),
            (".spec.list[7]", 4),
            ("nowhere", 1),
        ] {
            assert_eq!(first.line(path), line, "{path}");
        }
        assert_eq!((second.line("kind"), second.line("metadata.name")), (11, 11));
        assert!(Places::of("a: [").is_empty());
    }
}
