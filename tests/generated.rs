//! Generated files are committed and up to date.
use std::path::Path;

#[test]
fn the_committed_custom_resource_definitions_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = portalkeeper::app::crds::files().expect("the definitions render");
    for (name, expected) in &files {
        let found = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(&found, expected, "crds/{name} is out of date: run `cargo run -- crds --out crds`");
    }
    let committed = std::fs::read_dir(&folder).expect("crds/ exists").count();
    assert_eq!(committed, files.len(), "crds/ holds a file that no type generates");
}
