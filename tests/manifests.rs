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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_and_what_stands_twice_is_told_and_nothing_is_removed_meanwhile() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let map = |name: &str, value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n")
    };
    let apply =
        async || apply_folder(&world.client, folder.path()).await.iter().map(ToString::to_string).collect::<Vec<_>>();
    std::fs::write(at("a.yaml"), format!("{}---\n{}", map("one", "first"), map("two", "x"))).unwrap();
    assert_eq!(apply().await, Vec::<String>::new());
    // given a pipe that nobody writes to, a link to a file elsewhere, and an object that stands twice
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("linked"), map("linked", "x")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("linked"), at("link.yaml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe.yaml")).status().unwrap().success());
    std::fs::write(at("a.yaml"), map("one", "first")).unwrap();
    std::fs::write(at("b.yaml"), format!("# again\n{}", map("one", "second"))).unwrap();
    let path = folder.path().display().to_string();
    let told = [
        format!("{path}/pipe.yaml is no regular file, so it is not read; a manifest is a file or a link to one"),
        format!(
            "{path}/b.yaml:2: ConfigMap one stands in {path}/a.yaml:1 already, and that one is applied; remove one of the two"
        ),
    ];
    assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(20), apply()).await.unwrap(), told);
    // then the first one counts, the link is followed, and what is missing is not removed yet
    let maps: kube::api::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::api::Api::namespaced(world.client.clone(), "default");
    assert_eq!(maps.get("one").await.unwrap().data.unwrap()["k"], "first");
    assert!(maps.get_opt("linked").await.unwrap().is_some() && maps.get_opt("two").await.unwrap().is_some());
    // once both are put right, it is
    std::fs::remove_file(at("pipe.yaml")).unwrap();
    std::fs::remove_file(at("b.yaml")).unwrap();
    assert_eq!(apply().await, Vec::<String>::new());
    assert!(maps.get_opt("two").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_secret_is_told_about_without_its_values() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let told = async |fields: &str| {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: login}}\n{fields}\n");
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        let errors = apply_folder(&world.client, folder.path()).await;
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (fields, at) in [
        ("stringData: {password: [hunter3secret]}", "stringData.password: expected string"),
        ("stringData: {password: {a: hunter3secret}}", "stringData.password: expected string"),
        ("stringData: hunter3secret", "stringData: expected map"),
        ("data: {password: hunter3secret!}", ""),
        ("data: {hunter3: {x: hunter3secret}}\ntype: [hunter3secret]", ""),
        ("hunter: hunter3secret", "hunter: field not declared in schema"),
    ] {
        let words = told(fields).await;
        assert!(words.starts_with(&format!("{path}/s.yaml:")) && words.contains("Secret login: "), "{words}");
        assert!(words.contains(at) && !words.contains("hunter3secret"), "{words}");
    }
    let kept: kube::api::Api<k8s_openapi::api::core::v1::Secret> =
        kube::api::Api::namespaced(world.client.clone(), "default");
    assert!(kept.get_opt("login").await.unwrap().is_none());
}
