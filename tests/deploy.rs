//! What people install: chart, examples, image.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kube::api::{Api, DynamicObject, PostParams};
use portalkeeper::app::{install, manifests};
use serde_json::Value;

use crate::peers::{helm, kubernetes_validate};
use crate::process::{PROGRAM, text};
use crate::world::World;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `helm template` renders; fails where helm does.
fn rendered(helm: &Path, sets: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(helm)
        .env_clear()
        .env("HOME", home.path())
        .args(["template", "portalkeeper", "charts/portalkeeper", "--namespace", "portalkeeper"])
        .args(sets)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{sets:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_chart_is_linted_rendered_and_valid_in_every_shape() {
    let (Some(helm), Some(validate)) = (helm(), kubernetes_validate()) else { return };
    let home = tempfile::tempdir().unwrap();
    let lint = Command::new(&helm.program)
        .env_clear()
        .env("HOME", home.path())
        .args(["lint", "--strict", "charts/portalkeeper"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(lint.status.success(), "{}", text(&lint.stdout));
    let shapes: [&[&str]; 5] = [
        &[],
        &["--set", "persistence.enabled=false,serviceAccount.create=false,rbac.create=false"],
        &[
            "--set",
            "env.FORCE_HTTPS=true,persistence.existingClaim=mine,image.tag=x",
            "--set-json",
            r#"envFrom=[{"secretRef":{"name":"e"}}]"#,
        ],
        &[
            "--set-json",
            r#"extraVolumes=[{"name":"t","emptyDir":{}}]"#,
            "--set-json",
            r#"extraVolumeMounts=[{"name":"t","mountPath":"/etc/traefik/dynamic"}]"#,
        ],
        &["--set-json", r#"podLabels={"a":"b"}"#, "--set-json", r#"tolerations=[{"key":"k","operator":"Exists"}]"#],
    ];
    for sets in shapes {
        let objects = rendered(&helm.program, sets);
        let file = home.path().join("rendered.yaml");
        std::fs::write(&file, &objects).unwrap();
        let checked = Command::new(&validate.program).args(["--strict", "--quiet"]).arg(&file).output().unwrap();
        assert!(checked.status.success(), "{sets:?}: {}{}", text(&checked.stdout), text(&checked.stderr));
    }
    let plain = rendered(&helm.program, &[]);
    for words in [
        "replicas: 1",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "drop: [ALL]",
        "args: [run, --data, /data]",
    ] {
        assert!(
            plain.contains(words) || plain.contains(&words.replace("[ALL]", "\n                - ALL")),
            "no {words}"
        );
    }
    assert!(!plain.contains("kind: ClusterRole\n  verbs: [\"*\"]") && !plain.contains("- '*'"), "no wildcard rights");
}

#[test]
fn the_charts_definitions_and_the_plain_manifest_are_up_to_date() {
    for (name, expected) in portalkeeper::app::crds::files().unwrap() {
        let found = std::fs::read_to_string(root().join("charts/portalkeeper/crds").join(&name)).unwrap_or_default();
        assert_eq!(found, expected, "run `cargo run -- crds --out charts/portalkeeper/crds`");
    }
    let Some(helm) = helm() else { return };
    let found = std::fs::read_to_string(root().join("manifests/install/portalkeeper.yaml")).unwrap_or_default();
    let head = "# The chart's objects for `kubectl apply -f crds/ -f manifests/install/`, made by\n\
                # `helm template portalkeeper charts/portalkeeper --namespace portalkeeper`; do not edit.\n\
                apiVersion: v1\nkind: Namespace\nmetadata:\n  name: portalkeeper\n";
    let expected = format!("{head}{}", rendered(&helm.program, &[]));
    if found != expected {
        let fresh = root().join("target/portalkeeper.yaml");
        std::fs::write(&fresh, &expected).unwrap();
        panic!("manifests/install/portalkeeper.yaml is out of date: copy {} over it", fresh.display());
    }
}

fn examples(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if path.ends_with("install") => {}
            true => examples(&path, found),
            false => found.push(path),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted_by_the_definitions_with_strict_checking() {
    let world = World::stopped(None).await;
    let mut files = Vec::new();
    examples(&root().join("manifests"), &mut files);
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with('#'), "{} begins with what it is for", file.display());
        for document in manifests::parse(&file.display().to_string(), &text).unwrap() {
            let value = serde_json::to_value(&document.object).unwrap();
            let resource = install::resource(&value);
            let api: Api<DynamicObject> = match document.object.metadata.namespace.as_deref() {
                Some(namespace) => Api::namespaced_with(world.client.clone(), namespace, &resource),
                None => Api::all_with(world.client.clone(), &resource),
            };
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let mut made =
                api.create(&params, &document.object).await.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            // What the definitions do not know would have been dropped.
            made.metadata = document.object.metadata.clone();
            let (given, kept) = (&value["spec"], &made.data["spec"]);
            assert!(holds(kept, given), "{}: a field is unknown: {given} became {kept}", file.display());
        }
    }
}

/// Whether everything that is said in `part` is said in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|inner| holds(inner, value)))
        }
        (whole, part) => whole == part,
    }
}

/// The image holds glibc, libgcc and certificates: the program must not need more. It is started in an empty root
/// with just these.
#[test]
fn the_program_runs_in_an_empty_root_with_what_the_image_has() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path();
    let listed = Command::new("ldd").arg(PROGRAM).output().unwrap();
    for library in text(&listed.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let name = Path::new(library).file_name().unwrap().to_str().unwrap();
        let known = ["libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
        assert!(known.contains(&name), "the program needs {name}, which the image does not have");
        let at = empty.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::copy(library, at).unwrap();
    }
    std::fs::copy(PROGRAM, empty.join("portalkeeper")).unwrap();
    std::fs::create_dir(empty.join("data")).unwrap();
    let inside = |arguments: &[&str]| {
        // As root plainly, else in a user namespace of its own.
        let mut command = match Command::new("id").arg("-u").output().is_ok_and(|id| text(&id.stdout).trim() == "0") {
            true => Command::new("/usr/sbin/chroot"),
            false => {
                let mut command = Command::new("/usr/bin/unshare");
                command.args(["-r", "/usr/sbin/chroot"]);
                command
            }
        };
        command.arg(empty).arg("/portalkeeper").args(arguments).env_clear().env("HOME", "/data").output().unwrap()
    };
    let version = inside(&["--version"]);
    assert_eq!(
        text(&version.stdout),
        format!("portalkeeper {}\n", env!("CARGO_PKG_VERSION")),
        "{}",
        text(&version.stderr)
    );
    // It opens its stores and its ports, and says what it lacks: a cluster.
    let run = inside(&["run", "--data", "/data", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
    assert!(text(&run.stderr).contains("cannot reach a Kubernetes API"), "{}", text(&run.stderr));
}
