//! The part of JSONPath that printer columns use: fields, indexes, `[*]` and filters by equality. Pure.
use serde_json::Value;

/// The first value at a path, such as `.status.conditions[?(@.type=="Ready")].status`.
pub fn find<'a>(path: &str, object: &'a Value) -> Option<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut found = vec![object];
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            found = select(&after[..end], &found)?;
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (name, left) = field(after);
            if name.is_empty() {
                return None;
            }
            found = found.into_iter().filter_map(|value| value.get(&name)).collect();
            rest = left;
        }
        if found.is_empty() {
            return None;
        }
    }
    found.into_iter().find(|value| !value.is_null())
}

/// A field's name, with `\.` for a dot in it, and what follows.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => name.extend(characters.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket that is open ends; quoted brackets do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<&str> {
    let text = text.trim();
    let strip = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    strip('"').or_else(|| strip('\''))
}

fn select<'a>(inside: &str, values: &[&'a Value]) -> Option<Vec<&'a Value>> {
    let inside = inside.trim();
    let items = || values.iter().flat_map(|value| value.as_array().into_iter().flatten());
    if inside == "*" {
        return Some(items().collect());
    }
    if let Some(name) = quoted(inside) {
        return Some(values.iter().filter_map(|value| value.get(name)).collect());
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let (left, right) = filter.split_once("==")?;
        let left = left.trim().strip_prefix('@')?;
        let wanted = match quoted(right) {
            Some(text) => Value::String(text.to_owned()),
            None => serde_json::from_str(right.trim()).ok()?,
        };
        return Some(items().filter(|item| find(left, item) == Some(&wanted)).collect());
    }
    let index: i64 = inside.parse().ok()?;
    let at = |list: &'a Vec<Value>| {
        let index = if index < 0 { list.len() as i64 + index } else { index };
        usize::try_from(index).ok().and_then(|index| list.get(index))
    };
    Some(values.iter().filter_map(|value| value.as_array().and_then(at)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_printer_columns_are_followed() {
        let object = json!({
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]},
            "metadata": {"labels": {"a.b/c": "x"}}, "list": [1, 2, 3],
        });
        let at = |path: &str| find(path, &object).cloned().unwrap_or(Value::Null);
        assert_eq!(at(r#".status.conditions[?(@.type=="Ready")].status"#), "True");
        assert_eq!(at(r".status.conditions[?(@.type=='A')].status"), "False");
        assert_eq!(at(r".metadata.labels.a\.b/c"), "x");
        assert_eq!(at(r#".metadata.labels["a.b/c"]"#), "x");
        assert_eq!(at("{.list[1]}"), 2);
        assert_eq!(at(".list[-1]"), 3);
        assert_eq!(at(".list[*]"), 1);
        for nothing in [".x.y", ".list[9]", ".list[", "..", ".status.conditions[?(broken)]", "[?(@.a==)]"] {
            assert_eq!(at(nothing), Value::Null, "{nothing}");
        }
    }
}
