//! What is served: built-in resources, and whatever custom resource definitions are stored.
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::naming;
use super::rules::Rules;
use super::store::Store;
use crate::http::double::lock;

/// Where custom resource definitions are kept.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Where events are kept, whichever of their two versions they are written in.
pub const EVENTS: &str = "events.events.k8s.io";

/// A column of `kubectl get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    pub description: String,
    /// 0 is always shown, more only in wide output.
    pub priority: i64,
    /// OpenAPI format, shown to clients as it is.
    pub format: String,
    pub path: String,
}

/// One served resource.
pub struct Resource {
    pub group: String,
    pub version: String,
    /// The version in which objects are kept, whichever they are written in.
    pub storage_version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub has_status: bool,
    /// `openAPIV3Schema` of a custom resource.
    pub schema: Option<Arc<Value>>,
    /// The schema's CEL rules.
    pub rules: Option<Arc<Rules>>,
    /// Printer columns of a custom resource.
    pub columns: Vec<Column>,
    /// Fields of a custom resource by which objects can be selected, beside those of metadata: `spec.host`.
    pub selectable: Vec<String>,
    /// Objects up to this version were written before the schema got its defaults; 0 where it has none.
    pub defaulted_after: u64,
}

impl Resource {
    /// `plural` or `plural.group`: the name in messages.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// The store's name of the resource.
    pub fn stored_as(&self) -> String {
        if self.plural == "events" && self.group.is_empty() { EVENTS.to_owned() } else { self.full_name() }
    }
    /// `Kind` or `Kind.group`, as messages about invalid objects have it.
    pub fn full_kind(&self) -> String {
        // Events of both versions are one kind in two forms.
        if self.plural == "events" && !self.is_custom() {
            return self.kind.clone();
        }
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
    /// Whether objects are stored in another version's form and converted: core events.
    pub fn is_core_event(&self) -> bool {
        self.group.is_empty() && self.plural == "events"
    }
    /// The name of the kind's type in the messages of a real server, which is written in Go.
    pub fn go_type(&self) -> String {
        if self.is_custom() {
            return "unstructured.Unstructured".to_owned();
        }
        let package = match self.group.split('.').next().unwrap_or_default() {
            "" | "events" => "core",
            package => package,
        };
        format!("{package}.{}", self.kind)
    }
    /// Whether the resource comes from a definition.
    pub fn is_custom(&self) -> bool {
        self.schema.is_some()
    }
}

/// group, version, plural, kind, namespaced, has a status subresource, short names
type BuiltIn = (&'static str, &'static str, &'static str, &'static str, bool, bool, &'static [&'static str]);

const BUILT_IN: [BuiltIn; 11] = [
    ("", "v1", "configmaps", "ConfigMap", true, false, &["cm"]),
    ("", "v1", "events", "Event", true, false, &["ev"]),
    ("", "v1", "namespaces", "Namespace", false, true, &["ns"]),
    ("", "v1", "secrets", "Secret", true, false, &[]),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, false, &["sa"]),
    ("", "v1", "services", "Service", true, true, &["svc"]),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
        true,
        &["crd", "crds"],
    ),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, false, &[]),
    ("events.k8s.io", "v1", "events", "Event", true, false, &["ev"]),
    ("networking.k8s.io", "v1", "ingressclasses", "IngressClass", false, false, &[]),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", true, true, &["ing"]),
];

fn built_in((group, version, plural, kind, namespaced, has_status, short): &BuiltIn) -> Resource {
    Resource {
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        storage_version: (*version).to_owned(),
        plural: (*plural).to_owned(),
        singular: kind.to_lowercase(),
        kind: (*kind).to_owned(),
        short_names: short.iter().map(|name| (*name).to_owned()).collect(),
        categories: match *plural {
            // What `kubectl get all` means, as far as it is served.
            "services" => vec!["all".to_owned()],
            "customresourcedefinitions" => vec!["api-extensions".to_owned()],
            _ => Vec::new(),
        },
        namespaced: *namespaced,
        has_status: *has_status,
        schema: None,
        rules: None,
        columns: Vec::new(),
        selectable: Vec::new(),
        defaulted_after: 0,
    }
}

type Served = Arc<Vec<Arc<Resource>>>;

/// The served resources, read anew only when a definition has changed.
#[derive(Default)]
pub struct Catalog(Mutex<(Vec<u64>, Served)>);

impl Catalog {
    /// Every resource, in the order of group, version and name.
    pub fn all(&self, store: &Store) -> Served {
        let definitions = store.list(DEFINITIONS, None).objects;
        let versions: Vec<u64> = definitions.iter().map(|definition| definition.version()).collect();
        let mut cached = lock(&self.0);
        if cached.0 != versions || cached.1.is_empty() {
            let custom = definitions.iter().flat_map(|definition| custom(&definition.value()));
            let mut all: Vec<Arc<Resource>> = BUILT_IN.iter().map(built_in).chain(custom).map(Arc::new).collect();
            all.sort_by(|a, b| (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural)));
            *cached = (versions, Arc::new(all));
        }
        Arc::clone(&cached.1)
    }

    /// Whether a group is served whether or not definitions are there.
    pub fn is_built_in(group: &str) -> bool {
        BUILT_IN.iter().any(|(built_in, ..)| *built_in == group)
    }

    /// The resource at this place, if it is served.
    pub fn find(&self, store: &Store, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let all = self.all(store);
        all.iter().find(|r| r.group == group && r.version == version && r.plural == plural).cloned()
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The served versions of a definition, once it has got its names.
fn custom(definition: &Value) -> Vec<Resource> {
    let (spec, status) = (&definition["spec"], &definition["status"]);
    let served = |kind: &str| naming::is_true(&status["conditions"], kind);
    if !served("NamesAccepted") && !served("Established") {
        return Vec::new();
    }
    // Those that it wants may be somebody else's.
    let names = if status["acceptedNames"].is_object() { &status["acceptedNames"] } else { &spec["names"] };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let defined = definition["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut all = spec["versions"].as_array().into_iter().flatten();
    let storage = all.find(|version| version["storage"] == true).map(|v| text(&v["name"])).unwrap_or_default();
    let versions = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    versions
        .map(|version| {
            let schema = &version["schema"]["openAPIV3Schema"];
            let schema = if schema.is_object() { schema.clone() } else { serde_json::json!({"type": "object"}) };
            let schema = Arc::new(schema);
            let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
            let columns = columns.map(|column| Column {
                name: text(&column["name"]),
                kind: text(&column["type"]),
                description: text(&column["description"]),
                priority: column["priority"].as_i64().unwrap_or(0),
                format: text(&column["format"]),
                path: text(&column["jsonPath"]),
            });
            let selectable = version["selectableFields"].as_array().into_iter().flatten();
            let selectable = selectable.filter_map(|field| field["jsonPath"].as_str());
            Resource {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                storage_version: storage.clone(),
                plural: text(&names["plural"]),
                singular: names["singular"].as_str().map_or_else(|| text(&names["kind"]).to_lowercase(), str::to_owned),
                kind: text(&names["kind"]),
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                has_status: version["subresources"]["status"].is_object(),
                columns: columns.collect(),
                selectable: selectable.map(|path| path.trim_start_matches('.').to_owned()).collect(),
                defaulted_after: if has_defaults(&schema) { defined } else { 0 },
                rules: Rules::of(&schema),
                schema: Some(schema),
            }
        })
        .collect()
}

/// Whether a schema fills anything in.
fn has_defaults(schema: &Value) -> bool {
    let inner = |name: &str| schema[name].is_object() && has_defaults(&schema[name]);
    !schema["default"].is_null()
        || inner("items")
        || inner("additionalProperties")
        || schema["properties"].as_object().is_some_and(|fields| fields.values().any(has_defaults))
}
