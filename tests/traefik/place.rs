//! One folder is one place, however its path is spelled.
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::backends::Backend;
use portalkeeper::backends::traefik::{Layout, Traefik};
use serde_json::json;

use super::Watched;
use crate::world::World;

/// Other spellings of the folder: with what means nothing, and by a link.
fn spellings(watched: &Watched) -> Vec<String> {
    let link = watched.outer.path().join("link");
    std::os::unix::fs::symlink(watched.path(), &link).expect("linked");
    let outer = watched.outer.path().display();
    vec![format!("{outer}/./dynamic/"), format!("{outer}/dynamic/../dynamic"), link.display().to_string()]
}

#[tokio::test]
async fn every_spelling_of_the_folder_is_the_same_instance() {
    let watched = Watched::new();
    let options = watched.options(Layout::PerHost, "127.0.0.1:5000", None);
    let name = Traefik::new(options.clone()).expect("a backend").instance();
    assert_eq!(name, format!("traefik:{}", watched.path().canonicalize().expect("there").display()));
    for spelling in spellings(&watched) {
        let mut options = options.clone();
        options.dynamic_dir = spelling.clone().into();
        assert_eq!(Traefik::new(options).expect("a backend").instance(), name, "{spelling}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_spells_its_folder_otherwise_moves_nothing() {
    // given a portal in a folder
    let watched = Watched::new();
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let spelled = async |folder: &str| {
        let through = json!({"spec": {
            "proxy": {"caddy": null, "traefik": {"dynamicDir": folder, "originUrl": format!("http://{}", world.pages)}},
            "probe": {"enabled": false},
        }});
        classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
    };
    spelled(&watched.path().display().to_string()).await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let mut at = String::new();
    let settled = async |former: &str| {
        let portal = world
            .until("acme", "at home under the settings", |portal| {
                portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                    let here = status.place.as_ref().is_some_and(|place| place.settings != former);
                    here && status.moving.is_none() && status.leaving.is_empty() && !status.resources.is_empty()
                })
            })
            .await;
        let status = portal.and_then(|portal| portal.status).expect("a status");
        status.place.expect("a place").settings
    };
    at = settled(&at).await;
    let (files, writes) = (watched.files(), watched.writes());
    assert_eq!(watched.ours().len(), 1);
    // when the class spells it otherwise, then the portal is at home there, and its file was never touched
    for spelling in spellings(&watched) {
        spelled(&spelling).await;
        at = settled(&at).await;
        assert_eq!((watched.files(), watched.writes()), (files.clone(), writes), "{spelling}");
    }
    // and when it is deleted, then its file goes
    world.delete("acme").await;
    assert!(watched.ours().is_empty());
}
