//! A folder of manifests, for people without kubectl.
use portalkeeper::app::manifests::apply_folder;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_applied_changed_and_pruned() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let portal = |name: &str, more: &str| {
        format!(
            "apiVersion: portalkeeper.dev/v1alpha1\nkind: ResetPortal\nmetadata: {{name: {name}}}\nspec:\n  domain: {name}.localhost\n{more}"
        )
    };
    file("a.yaml", &format!("{}---\n{}", portal("acme", ""), portal("globex", "")));
    file("notes.txt", "not a manifest");
    let apply =
        async || apply_folder(&world.client, folder.path()).await.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(apply().await, Vec::<String>::new());
    world.until_ready("acme").await;
    world.until_ready("globex").await;
    // an object made by other means is left alone by what follows
    world.create("initech", serde_json::json!({"domain": "initech.localhost"})).await;
    // the same again writes nothing
    let version = world.portals().get("acme").await.unwrap().metadata.resource_version;
    assert_eq!(apply().await, Vec::<String>::new());
    assert_eq!(world.portals().get("acme").await.unwrap().metadata.resource_version, version);
    // a mistake names file and place, changes nothing, and removes nothing
    let path = folder.path().display().to_string();
    file("a.yaml", &portal("acme", "  branding: {theme: Pink}\n"));
    assert_eq!(
        apply().await,
        [format!(
            "{path}/a.yaml:6: ResetPortal acme: ResetPortal.portalkeeper.dev \"acme\" is invalid: [spec.branding.theme: \
             Unsupported value: \"Pink\": supported values: \"Light\", \"Dark\", \"Auto\", <nil>: Invalid value: null: some \
             validation rules were not checked because the object was invalid; correct the existing errors to complete \
             validation]"
        )]
    );
    file("a.yaml", "apiVersion: [");
    let errors = apply().await;
    assert_eq!(errors, [format!("{path}/a.yaml:1: line 1 column 13: unclosed bracket '['")]);
    file("a.yaml", &portal("acme", "  nope: 1\n"));
    assert_eq!(
        apply().await,
        [format!(
            "{path}/a.yaml:6: ResetPortal acme: failed to create typed patch object (/acme; portalkeeper.dev/v1alpha1, \
             Kind=ResetPortal): .spec.nope: field not declared in schema"
        )]
    );
    file("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n");
    assert_eq!(apply().await, [format!("{path}/a.yaml:2: Pod of v1 is not served here")]);
    assert!(world.portals().get_opt("globex").await.unwrap().is_some());
    // a document that is gone takes its object along
    file("a.yaml", &portal("acme", "  branding: {title: Acme}\n"));
    assert_eq!(apply().await, Vec::<String>::new());
    world.until("globex", "gone", |portal| portal.is_none()).await;
    assert_eq!(world.portals().get("acme").await.unwrap().spec.branding.title.as_deref(), Some("Acme"));
    assert!(world.portals().get_opt("initech").await.unwrap().is_some());
}
