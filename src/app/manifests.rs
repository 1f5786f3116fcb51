//! `--manifests DIR`: a folder of YAML documents that is applied at start and again whenever it changes,
//! for people without kubectl.
//!
//! Every document is server-side applied under the field manager `manifests` and labelled, so that an object
//! whose document is gone from the folder is deleted; objects made by other means are never deleted.
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{ApiResource, Discovery, Scope};
use serde_json::Value;

use super::places::Places;
use crate::http::shutdown::Shutdown;

const MANAGER: &str = "manifests";
const LABEL: &str = "portalkeeper.dev/applied-by";
const LABEL_VALUE: &str = "manifests";
const POLL: Duration = Duration::from_secs(2);

/// Why a document was not applied. Messages begin with the file and the line, as compilers have it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read the folder of manifests {path}: {source}", path = .path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("cannot read {file}: {source}")]
    File { file: String, source: std::io::Error },
    #[error("{file} is no regular file, so it is not read; a manifest is a file or a link to one")]
    NotAFile { file: String },
    #[error("{file}:{line}: {kind} {name} stands in {first} already, and that one is applied; remove one of the two")]
    Twice { file: String, line: u64, kind: String, name: String, first: String },
    #[error("{file}:{line}: {message}")]
    Yaml { file: String, line: u64, message: String },
    #[error("{file}:{line}: the document has no {missing}")]
    Incomplete { file: String, line: u64, missing: &'static str },
    #[error("{file}:{line}: {kind} of {api_version} is not served here")]
    UnknownKind { file: String, line: u64, kind: String, api_version: String },
    #[error("{file}:{line}: {kind} {name}: {message}")]
    Refused { file: String, line: u64, kind: String, name: String, message: String },
    #[error("cannot ask the API what it serves: {0}")]
    Discovery(String),
}

impl ManifestError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "FolderUnreadable",
            Self::File { .. } => "FileUnreadable",
            Self::NotAFile { .. } => "NotAFile",
            Self::Twice { .. } => "DefinedTwice",
            Self::Yaml { .. } => "InvalidYaml",
            Self::Incomplete { .. } => "IncompleteDocument",
            Self::UnknownKind { .. } => "UnknownKind",
            Self::Refused { .. } => "Refused",
            Self::Discovery(_) => "DiscoveryFailed",
        }
    }
}

/// One YAML document with the place it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub file: String,
    pub places: Places,
    pub object: DynamicObject,
}

/// Reads `*.yaml`, `*.yml` and `*.json` of a folder in the order of their names.
pub fn read_folder(folder: &Path) -> (Vec<Document>, Vec<ManifestError>) {
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(source) => return (documents, vec![ManifestError::Folder { path: folder.to_owned(), source }]),
    };
    let mut files: Vec<PathBuf> = entries
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")))
        .collect();
    files.sort();
    for path in files {
        let file = path.display().to_string();
        // Reading a pipe or a device would wait for ever.
        if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            errors.push(ManifestError::NotAFile { file });
            continue;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => match parse(&file, &text) {
                Ok(found) => documents.extend(found),
                Err(error) => errors.push(error),
            },
            Err(source) => errors.push(ManifestError::File { file, source }),
        }
    }
    (documents, errors)
}

/// Parses the documents of one file. Errors name the file and the line.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let values: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        // The first line says where and what; the rest draws it.
        let shown = error.to_string();
        let mut message = shown.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        // What no file may be larger than, lest reading it takes for ever.
        if message.contains("budget breached") {
            message.push_str("; the file is too large, of more than 1024 documents for one: split it into several");
        }
        let line = error.location().map_or(1, |location| location.line());
        ManifestError::Yaml { file: file.to_owned(), line, message }
    })?;
    let mut documents = Vec::new();
    for (value, places) in values.into_iter().zip(Places::of(text)) {
        if value.is_null() {
            continue;
        }
        let missing =
            |missing| ManifestError::Incomplete { file: file.to_owned(), line: places.line(missing), missing };
        let text_at = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).is_some_and(|t| !t.is_empty());
        for (pointer, name) in [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "metadata.name")] {
            if !text_at(pointer) {
                return Err(missing(name));
            }
        }
        let object = serde_json::from_value(value).map_err(|error| ManifestError::Yaml {
            file: file.to_owned(),
            line: places.line("metadata"),
            message: error.to_string(),
        })?;
        documents.push(Document { file: file.to_owned(), places, object });
    }
    Ok(documents)
}

/// The line of the field that a refusal is about, as far as it says.
fn line_of(places: &Places, error: &kube::Error) -> u64 {
    let kube::Error::Api(status) = error else { return places.line("") };
    let causes = status.details.as_ref().map(|details| details.causes.iter());
    let told =
        causes.into_iter().flatten().map(|cause| cause.field.clone()).find(|field| field.len() > 1 && field != "<nil>");
    // A field that no schema knows stands in the words alone.
    let field = told.or_else(|| {
        let (_, rest) = status.message.split_once("): .")?;
        rest.split_once(": ").map(|(field, _)| field.to_owned())
    });
    places.line(field.as_deref().unwrap_or_default())
}

/// Applies the folder once and prunes what an earlier pass applied and the folder no longer holds.
/// Nothing is pruned while any document cannot be read, because its objects would look removed.
pub async fn apply_folder(client: &kube::Client, folder: &Path) -> Vec<ManifestError> {
    let (documents, mut errors) = read_folder(folder);
    let whole = errors.is_empty();
    let discovery = match Discovery::new(client.clone()).run().await {
        Ok(discovery) => discovery,
        Err(error) => {
            errors.push(ManifestError::Discovery(error.to_string()));
            return errors;
        }
    };
    let mut wanted: BTreeMap<(String, String), BTreeSet<(String, String)>> = BTreeMap::new();
    let mut seen: BTreeMap<(String, String, String, String), String> = BTreeMap::new();
    for document in &documents {
        let Place { resource, namespace } = match place(&discovery, document) {
            Ok(place) => place,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let name = document.object.metadata.name.clone().unwrap_or_default();
        let inside = namespace.clone().unwrap_or_default();
        // Versions of one kind are the same objects.
        let identity = (resource.group.clone(), resource.kind.clone(), inside.clone(), name.clone());
        let (file, line) = (document.file.clone(), document.places.line(""));
        match seen.entry(identity) {
            Entry::Occupied(first) => {
                let (kind, first) = (resource.kind.clone(), first.get().clone());
                errors.push(ManifestError::Twice { file, line, kind, name, first });
                continue;
            }
            Entry::Vacant(free) => free.insert(format!("{file}:{line}")),
        };
        if let Err(error) = apply(client, &resource, namespace.as_deref(), document).await {
            errors.push(error);
        }
        wanted.entry((resource.api_version, resource.kind)).or_default().insert((inside, name));
    }
    if whole && errors.is_empty() {
        prune(client, &discovery, &wanted).await;
    }
    errors
}

/// Where a document's object is kept.
struct Place {
    resource: ApiResource,
    /// `None` for cluster-wide objects.
    namespace: Option<String>,
}

fn place(discovery: &Discovery, document: &Document) -> Result<Place, ManifestError> {
    let types = document.object.types.clone().unwrap_or_default();
    let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
    let gvk = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
    let (resource, capabilities) = discovery.resolve_gvk(&gvk).ok_or_else(|| ManifestError::UnknownKind {
        file: document.file.clone(),
        line: document.places.line("kind"),
        kind: types.kind.clone(),
        api_version: types.api_version.clone(),
    })?;
    let namespace = (capabilities.scope == Scope::Namespaced)
        .then(|| document.object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()));
    Ok(Place { resource, namespace })
}

/// Server-side applies one document.
async fn apply(
    client: &kube::Client,
    resource: &ApiResource,
    namespace: Option<&str>,
    document: &Document,
) -> Result<(), ManifestError> {
    let name = document.object.metadata.name.clone().unwrap_or_default();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let mut object = document.object.clone();
    object.metadata.labels.get_or_insert_default().insert(LABEL.to_owned(), LABEL_VALUE.to_owned());
    let mut params = PatchParams::apply(MANAGER).force();
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let done = api.patch(&name, &params, &Patch::Apply(&object)).await;
    done.map(|_| ()).map_err(|error| ManifestError::Refused {
        file: document.file.clone(),
        line: line_of(&document.places, &error),
        kind: resource.kind.clone(),
        name,
        message: match error {
            kube::Error::Api(status) if holds_secrets(resource) => without_values(&status),
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        },
    })
}

fn holds_secrets(resource: &ApiResource) -> bool {
    resource.group.is_empty() && resource.kind == "Secret"
}

/// A refusal of a Secret, of which the API quotes values: only the fields that it is about are told, and what is wrong
/// where the words hold nothing else.
fn without_values(status: &kube::core::Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut told: Vec<String> = causes
        .filter(|cause| is_path(&cause.field))
        .map(|cause| format!("{}: {}", cause.field, cause.reason))
        .collect();
    if told.is_empty() {
        let problem = status.message.split_once("): .").and_then(|(_, rest)| rest.split_once(": "));
        told.extend(problem.filter(|(field, _)| is_path(field)).map(|(field, words)| {
            let words = words.split(',').next().unwrap_or_default();
            let safe = words == "field not declared in schema" || words.starts_with("expected ");
            format!("{field}: {}", if safe { words } else { "not valid" })
        }));
    }
    let fields = if told.is_empty() { String::new() } else { format!(" at {}", told.join(", ")) };
    let reason = if status.reason.is_empty() { "refused" } else { status.reason.as_str() };
    format!("{reason}{fields} (the API's own words may hold values, so they are left out)")
}

/// Whether a text is the path of a field, like `data[key].x`.
fn is_path(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/[]".contains(&byte))
}

async fn prune(
    client: &kube::Client,
    discovery: &Discovery,
    wanted: &BTreeMap<(String, String), BTreeSet<(String, String)>>,
) {
    let selector = ListParams::default().labels(&format!("{LABEL}={LABEL_VALUE}"));
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation("list") || !capabilities.supports_operation("delete") {
                continue;
            }
            let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let Ok(list) = all.list(&selector).await else { continue };
            let kept = wanted.get(&(resource.api_version.clone(), resource.kind.clone()));
            for object in list {
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                let name = object.metadata.name.clone().unwrap_or_default();
                if kept.is_some_and(|kept| kept.contains(&(namespace.clone(), name.clone()))) {
                    continue;
                }
                let api: Api<DynamicObject> = if namespace.is_empty() {
                    Api::all_with(client.clone(), &resource)
                } else {
                    Api::namespaced_with(client.clone(), &namespace, &resource)
                };
                match api.delete(&name, &DeleteParams::default()).await {
                    Ok(_) => tracing::info!(kind = %resource.kind, %namespace, %name, "deleted: its manifest is gone"),
                    Err(error) => {
                        tracing::warn!(kind = %resource.kind, %namespace, %name, %error, "cannot delete a pruned object")
                    }
                }
            }
        }
    }
}

/// Names, sizes and times of the folder's files: what tells that it changed.
fn fingerprint(folder: &Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let mut seen: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            // Of a link, that of the file it leads to.
            let metadata = std::fs::metadata(entry.path()).or_else(|_| entry.metadata()).ok()?;
            Some((entry.path(), metadata.len(), metadata.modified().ok()))
        })
        .collect();
    seen.sort();
    seen
}

/// Keeps the folder applied until shutdown. Errors go to the log, once per change of the folder.
pub async fn watch(client: kube::Client, folder: PathBuf, shutdown: Shutdown) {
    let mut last = None;
    loop {
        let now = fingerprint(&folder);
        if last.as_ref() != Some(&now) {
            for error in apply_folder(&client, &folder).await {
                tracing::error!(reason = error.reason(), "{error}");
            }
            last = Some(now);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = shutdown.wait() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_documents_name_their_file_and_what_is_wrong() {
        let error = parse("portals/a.yaml", "apiVersion: v1\nkind: [unclosed\n").unwrap_err();
        assert_eq!(error.reason(), "InvalidYaml");
        assert!(error.to_string().starts_with("portals/a.yaml:2: "), "{error}");
        let many = "kind: ConfigMap\n---\n".repeat(1100);
        let error = parse("many.yaml", &many).unwrap_err();
        assert!(error.to_string().ends_with("split it into several"), "{error}");
        let error = parse("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n").unwrap_err();
        assert_eq!(error.to_string(), "b.yaml:3: the document has no metadata.name");
    }

    #[test]
    fn several_documents_and_empty_ones_are_read() {
        let text = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
        let names: Vec<_> = parse("c.yaml", text).unwrap().into_iter().map(|d| d.object.metadata.name).collect();
        assert_eq!(names, [Some("a".to_owned()), Some("b".to_owned())]);
    }
}
