//! The arrows between layers: a file may import only what stands below it.
use std::path::{Path, PathBuf};

/// Layers from the top down; modules of one row do not import each other.
const LAYERS: [&[&str]; 9] = [
    &["cli"],
    &["app"],
    &["controller", "web", "sandbox"],
    &["reset"],
    &["backends", "mailbox", "mail", "store", "apiserver"],
    &["http"],
    &["plan"],
    &["api"],
    &["config", "telemetry"],
];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder is readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Words after `crate::`, also inside a group: `crate::{api::X, plan}`. Comments do not count.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let word = |t: &str| t.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (index, c) in group.char_indices() {
                    if start && depth == 0 && !c.is_whitespace() && c != '}' {
                        found.push(word(&group[index..]));
                        start = false;
                    }
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// What a file of `module` at `path` (relative to src) breaks.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let parts: Vec<&str> = path.split('/').collect();
    if let Some(own) = rank(parts[0]) {
        for import in imports(text) {
            if import == parts[0] {
                continue;
            }
            if rank(&import).is_some_and(|other| other <= own) {
                broken.push(format!("{path} imports crate::{import}, which does not stand below {}", parts[0]));
            }
        }
    }
    if parts[0] == "backends" && parts.len() > 2 {
        for (at, _) in text.match_indices("crate::backends::") {
            let sibling =
                text[at + "crate::backends::".len()..].split(|c: char| !c.is_alphanumeric() && c != '_').next();
            let folders = ["caddy", "cloudflare", "cloudflare_tunnel", "ingress", "manual", "npm", "traefik"];
            if sibling.is_some_and(|s| folders.contains(&s) && s != parts[1]) {
                broken.push(format!("{path} imports its sibling backend {}", sibling.unwrap_or_default()));
            }
        }
    }
    let code = || text.lines().map(|line| line.split("//").next().unwrap_or_default());
    if parts[0] != "http" && code().any(|line| line.contains("reqwest::")) {
        broken.push(format!("{path} names reqwest, which only http may"));
    }
    if path != "http/retry.rs" && code().any(|line| line.contains("backoff::")) {
        broken.push(format!("{path} names backoff, which only http/retry.rs may"));
    }
    broken
}

#[test]
fn no_file_imports_what_does_not_stand_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut broken = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&root).expect("inside src").to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(file).expect("readable");
        broken.extend(violations(&relative, &text));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_top_level_module_has_a_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(root).expect("src is readable").flatten().filter(|e| e.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(rank(&name).is_some(), "src/{name} stands in no layer of tests/architecture.rs");
    }
}

#[test]
fn a_forbidden_import_is_found() {
    assert_eq!(violations("plan/x.rs", "use crate::http::Client;").len(), 1);
    assert_eq!(violations("web/x.rs", "use crate::{api::X, controller::{a, b}, plan};").len(), 1);
    assert_eq!(violations("backends/caddy/x.rs", "use crate::backends::cloudflare::Y;").len(), 1);
    assert_eq!(violations("mail/x.rs", "let c = reqwest::Client::new();").len(), 1);
    assert_eq!(violations("http/client.rs", "use backoff::retry;").len(), 1);
    assert!(violations("controller/x.rs", "use crate::{api::X, plan::Y}; // crate::cli").is_empty());
}
