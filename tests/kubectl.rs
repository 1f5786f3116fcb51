//! Unmodified kubectl against a running sandbox, as a person types it.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::peers::{Peer, kubectls, old_kubectls};
use crate::process::{Sandbox, text};

struct Kubectl<'a> {
    peer: &'a Peer,
    home: &'a Path,
    sandbox: &'a Sandbox,
}

impl Kubectl<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.peer.program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home)
            .env("KUBECONFIG", &self.sandbox.kubeconfig)
            .current_dir(self.home);
        command
    }

    fn run(&self, words: &str) -> (bool, String, String) {
        let arguments: Vec<&str> = words.split(' ').collect();
        let output = self.command().args(&arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// What a command that works prints.
    fn ok(&self, words: &str) -> String {
        let (done, out, errors) = self.run(words);
        assert!(done, "{}: {words}: {out}{errors}", self.peer.name);
        out
    }

    /// What a refused command says.
    fn refused(&self, words: &str) -> String {
        let (done, out, errors) = self.run(words);
        assert!(!done, "{}: {words}: {out}", self.peer.name);
        errors.trim().to_owned()
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.home.join(name), content).unwrap();
    }
}

fn portal(spec: &str) -> String {
    format!(
        "apiVersion: portalkeeper.dev/v1alpha1\nkind: ResetPortal\nmetadata:\n  name: initech\nspec:\n  domain: initech.localhost\n{spec}"
    )
}

/// Sandboxes that run beside each other in one test.
const AT_ONCE: usize = 3;

/// One scenario for each kubectl, each on a sandbox of its own.
fn each(scenario: impl Fn(&Kubectl<'_>) + Sync) {
    each_of(&kubectls(), scenario);
}

fn each_of(peers: &[Peer], scenario: impl Fn(&Kubectl<'_>) + Sync) {
    for some in peers.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for peer in some {
                scope.spawn(|| {
                    let folder = tempfile::tempdir().unwrap();
                    let sandbox = Sandbox::start(folder.path());
                    scenario(&Kubectl { peer, home: folder.path(), sandbox: &sandbox });
                    assert_eq!(sandbox.interrupt(), 0);
                });
            }
        });
    }
}

#[test]
fn a_portal_lives_by_kubectl_alone() {
    each(|k| {
        k.file("portal.yaml", &portal(""));
        assert_eq!(k.ok("apply -f portal.yaml"), "resetportal.portalkeeper.dev/initech created\n");
        let met = "resetportal.portalkeeper.dev/initech condition met\n";
        assert_eq!(k.ok("wait --for=condition=Ready rp/initech --timeout=20s"), met);
        assert_eq!(k.ok("apply -f portal.yaml"), "resetportal.portalkeeper.dev/initech unchanged\n");
        let table = k.ok("get resetportals");
        let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(heads, ["NAME", "HOST", "BACKEND", "READY", "REASON", "AGE"]);
        let row: Vec<&str> = table.lines().find(|l| l.starts_with("initech")).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["initech", "reset.initech.localhost", "caddy", "True", "Live"]);
        assert!(k.ok("get rp initech -o yaml").contains("url: http://reset.initech.localhost:"));
        let described = k.ok("describe rp initech");
        for words in [
            "Type:                  Live",
            "RecordChanged",
            "RouteChanged",
            "cloudflare: create reset.initech.localhost",
        ] {
            assert!(described.contains(words), "{}: no {words} in {described}", k.peer.name);
        }
        // changes of every kind
        assert_eq!(k.ok("label rp initech team=a"), "resetportal.portalkeeper.dev/initech labeled\n");
        assert!(k.ok("get rp -l team=a -o name").contains("resetportal.portalkeeper.dev/initech"));
        assert_eq!(k.ok("annotate rp initech note=x"), "resetportal.portalkeeper.dev/initech annotated\n");
        let patch = r#"patch rp initech --type=merge -p {"spec":{"branding":{"title":"Initech"}}}"#;
        assert_eq!(k.ok(patch), "resetportal.portalkeeper.dev/initech patched\n");
        let json =
            r#"patch rp initech --type=json -p [{"op":"replace","path":"/spec/branding/title","value":"Initrode"}]"#;
        assert_eq!(k.ok(json), "resetportal.portalkeeper.dev/initech patched\n");
        let edited =
            k.command().env("KUBE_EDITOR", "sed -i s/Initrode/Edited/").args(["edit", "rp", "initech"]).output();
        assert_eq!(text(&edited.unwrap().stdout), "resetportal.portalkeeper.dev/initech edited\n");
        assert_eq!(k.ok("get rp initech -o jsonpath={.spec.branding.title}"), "Edited");
        k.file("portal.yaml", &portal("  branding: {title: Applied}\n"));
        assert_eq!(k.ok("apply -f portal.yaml"), "resetportal.portalkeeper.dev/initech configured\n");
        // and its end, with the finalizer honoured
        let deleted = k.ok("delete rp initech --wait=true --timeout=20s");
        // Newer ones name the namespace.
        let words = deleted.trim_end().trim_end_matches(" from default namespace");
        assert_eq!(words, "resetportal.portalkeeper.dev \"initech\" deleted");
        assert_eq!(
            k.refused("get rp initech"),
            "Error from server (NotFound): resetportals.portalkeeper.dev \"initech\" not found"
        );
        assert!(!k.ok("get portalclaims").contains("initech"));
    });
}

#[test]
fn built_in_kinds_and_questions_work() {
    each(|k| {
        assert_eq!(k.ok("create secret generic s --from-literal=token=abc"), "secret/s created\n");
        assert_eq!(k.ok("create configmap c --from-literal=a=b"), "configmap/c created\n");
        assert_eq!(k.ok("create namespace team"), "namespace/team created\n");
        assert_eq!(k.ok("create serviceaccount robot -n team"), "serviceaccount/robot created\n");
        assert_eq!(
            k.ok("create ingress web --class=nginx --rule=shop.localhost/*=shop:80"),
            "ingress.networking.k8s.io/web created\n"
        );
        assert_eq!(k.ok("get secret s -o jsonpath={.data.token}/{.type}"), "YWJj/Opaque");
        assert_eq!(k.ok("get ingress web -o jsonpath={.spec.rules[0].host}"), "shop.localhost");
        assert_eq!(k.ok("label cm c x=y"), "configmap/c labeled\n");
        k.file("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {a: '1', b: '2'}\n");
        k.ok("apply -f c.yaml");
        k.file("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {b: '3'}\n");
        assert_eq!(k.ok("apply -f c.yaml"), "configmap/d configured\n");
        assert_eq!(k.ok("get cm d -o jsonpath={.data}"), r#"{"b":"3"}"#);
        assert_eq!(k.ok("auth can-i delete rp"), "yes\n");
        assert!(k.ok("auth whoami").contains("portalkeeper-admin"));
        assert!(k.ok("explain rp.spec.domain").contains("what stands after the `@` of the mailboxes"));
        assert!(k.ok("explain secret.data").contains("base64"));
        assert!(k.ok("api-resources").contains("resetportals"));
        assert!(k.ok("get all,secrets,cm,ns,events,leases,crds -A").contains("namespace/team"));
        k.ok("delete namespace team --timeout=20s");
        assert!(k.refused("get sa robot -n team").contains("NotFound"));
        assert_eq!(k.ok("get ns -o name").lines().filter(|line| line.contains("team")).count(), 0);
    });
}

#[test]
fn bad_objects_are_refused_in_words_that_help() {
    each(|k| {
        let refused = |spec: &str| {
            k.file("bad.yaml", &portal(spec));
            k.refused("apply -f bad.yaml")
        };
        let invalid = "The ResetPortal \"initech\" is invalid: ";
        assert_eq!(
            refused("  branding: {theme: Pink}\n"),
            format!(
                "{invalid}\n* spec.branding.theme: Unsupported value: \"Pink\": supported values: \"Light\", \"Dark\", \"Auto\"\n\
                 * <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation"
            )
        );
        assert_eq!(
            refused("  branding: {accentColour: red}\n"),
            format!(
                "{invalid}spec.branding.accentColour: Invalid value: \"red\": spec.branding.accentColour in body should match '^#[0-9a-f]{{6}}$'"
            )
        );
        assert_eq!(
            refused("  host: a.b.localhost\n  subdomain: c\n"),
            format!("{invalid}<nil>: Invalid value: give either subdomain or host, not both")
        );
        assert!(refused("  nope: 1\n").ends_with("strict decoding error: unknown field \"spec.nope\""));
        assert!(refused("  enabled: maybe\n").contains("spec.enabled in body must be of type boolean: \"string\""));
        k.file("bad.yaml", "apiVersion: portalkeeper.dev/v1alpha1\nkind: ResetPortal\nmetadata: {name: Bad_Name}\nspec: {domain: a.localhost}\n");
        assert!(k.refused("apply -f bad.yaml").contains("a lowercase RFC 1123 subdomain must consist of"));
        k.file("bad.yaml", "apiVersion: v1\nkind: [unclosed\n");
        assert!(k.refused("apply -f bad.yaml").contains("error converting YAML to JSON"));
        // immutable
        k.file("portal.yaml", &portal(""));
        k.ok("apply -f portal.yaml");
        k.file("portal.yaml", &portal("").replace("initech.localhost", "other.localhost"));
        assert_eq!(
            k.refused("apply -f portal.yaml"),
            format!(
                "{invalid}spec.domain: Invalid value: \"other.localhost\": domain is immutable; delete the portal and make a new one"
            )
        );
        // a name that passes the schema and fails the checks behind it says so in its condition
        k.file("port.yaml", "apiVersion: portalkeeper.dev/v1alpha1\nkind: ResetPortal\nmetadata: {name: numeric}\nspec: {domain: acme.123}\n");
        k.ok("apply -f port.yaml");
        k.ok("wait --for=condition=Accepted=false rp/numeric --timeout=20s");
        let message = k.ok("get rp numeric -o jsonpath={.status.conditions[?(@.type==\"Accepted\")].message}");
        assert_eq!(message, "spec.domain: `acme.123` is an IP address; a host name is needed");
    });
}

#[test]
fn server_side_apply_has_owners_conflicts_and_force() {
    each(|k| {
        k.file("portal.yaml", &portal("  branding: {title: One, theme: Dark}\n"));
        let applied = "resetportal.portalkeeper.dev/initech serverside-applied\n";
        assert_eq!(k.ok("apply --server-side -f portal.yaml"), applied);
        assert_eq!(k.ok("apply --server-side -f portal.yaml"), applied);
        k.ok(r#"patch rp initech --type=merge -p {"spec":{"branding":{"title":"Two"}}}"#);
        let conflict = k.refused("apply --server-side -f portal.yaml");
        let words = "Apply failed with 1 conflict: conflict with \"kubectl-patch\" using portalkeeper.dev/v1alpha1: .spec.branding.title";
        assert!(conflict.contains(words), "{conflict}");
        let (same, changes, _) = k.run("diff --server-side --force-conflicts -f portal.yaml");
        assert!(!same && changes.contains("-    title: Two") && changes.contains("+    title: One"), "{changes}");
        assert_eq!(k.ok("apply --server-side --force-conflicts -f portal.yaml"), applied);
        // what is no longer applied goes back to its default
        k.file("portal.yaml", &portal("  branding: {title: One}\n"));
        k.ok("apply --server-side -f portal.yaml");
        assert_eq!(k.ok("get rp initech -o jsonpath={.spec.branding}"), r#"{"theme":"Auto","title":"One"}"#);
        // the controller's own fields are its own
        k.ok("wait --for=condition=Ready rp/initech --timeout=20s");
        let managers = k.ok("get rp initech --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}");
        assert!(managers.starts_with("kubectl ") && managers.contains("portalkeeper"), "{managers}");
        // from client-side to server-side apply
        k.file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1', b: '2'}\n");
        k.ok("apply -f map.yaml");
        k.file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {b: '2'}\n");
        assert_eq!(k.ok("apply --server-side -f map.yaml"), "configmap/m serverside-applied\n");
        assert_eq!(k.ok("get cm m -o jsonpath={.data}"), r#"{"b":"2"}"#);
        let (same, changes, _) = k.run("diff --server-side -f map.yaml");
        assert!(same, "{changes}");
    });
}

#[test]
fn a_watch_shows_a_portal_becoming_ready() {
    each(|k| {
        let output = k.home.join("watch.txt");
        let mut watching = k
            .command()
            .args(["get", "rp", "-w"])
            .stdout(std::fs::File::create(&output).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        k.file("portal.yaml", &portal(""));
        k.ok("apply -f portal.yaml");
        let began = Instant::now();
        let seen = loop {
            let seen = std::fs::read_to_string(&output).unwrap();
            if seen.lines().any(|line| line.starts_with("initech") && line.contains("True") && line.contains("Live"))
                || began.elapsed() > Duration::from_secs(20)
            {
                break seen;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        watching.kill().unwrap();
        watching.wait().unwrap();
        assert!(seen.contains("reset.initech.localhost"), "{}: {seen}", k.peer.name);
    });
}

/// What `docs/embedded-api.md` states for those that know only the older OpenAPI documents: no `explain`, no `diff`, and
/// `--validate=false` where they would check by them.
#[test]
fn older_kubectls_do_all_but_explain_diff_and_validate() {
    each_of(&old_kubectls(), |k| {
        let portal_name = "resetportal.portalkeeper.dev/initech";
        k.file("portal.yaml", &portal(""));
        assert_eq!(k.ok("apply --validate=false -f portal.yaml"), format!("{portal_name} created\n"));
        assert_eq!(
            k.ok("wait --for=condition=Ready rp/initech --timeout=20s"),
            format!("{portal_name} condition met\n")
        );
        assert_eq!(k.ok("apply --validate=false -f portal.yaml"), format!("{portal_name} unchanged\n"));
        let table = k.ok("get resetportals");
        let row: Vec<&str> = table.lines().find(|l| l.starts_with("initech")).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["initech", "reset.initech.localhost", "caddy", "True", "Live"]);
        let described = k.ok("describe rp initech");
        assert!(described.contains("RouteChanged") && described.contains("Live"), "{}: {described}", k.peer.name);
        assert_eq!(k.ok("label rp initech team=a"), format!("{portal_name} labeled\n"));
        assert!(k.ok("get rp -l team=a -o name").contains(portal_name));
        // 1.27 leaves the last letter away
        assert!(k.ok("annotate rp initech note=x").starts_with(&format!("{portal_name} annotate")));
        let patch = r#"patch rp initech --type=merge -p {"spec":{"branding":{"title":"Initech"}}}"#;
        assert_eq!(k.ok(patch), format!("{portal_name} patched\n"));
        let json =
            r#"patch rp initech --type=json -p [{"op":"replace","path":"/spec/branding/title","value":"Initrode"}]"#;
        assert_eq!(k.ok(json), format!("{portal_name} patched\n"));
        assert_eq!(k.ok("get rp initech -o jsonpath={.spec.branding.title}"), "Initrode");
        k.file("portal.yaml", &portal("  branding: {title: Applied}\n"));
        assert_eq!(k.ok("apply --validate=false -f portal.yaml"), format!("{portal_name} configured\n"));
        assert_eq!(
            k.ok("apply --validate=false --server-side --force-conflicts -f portal.yaml"),
            format!("{portal_name} serverside-applied\n")
        );
        // what is wrong is still said, by the API
        k.file("bad.yaml", &portal("  branding: {theme: Pink}\n"));
        assert!(
            k.refused("apply --validate=false -f bad.yaml")
                .contains("spec.branding.theme: Unsupported value: \"Pink\"")
        );
        // built-in kinds and questions
        assert_eq!(k.ok("create secret generic s --from-literal=token=abc"), "secret/s created\n");
        assert_eq!(k.ok("create configmap c --from-literal=a=b"), "configmap/c created\n");
        assert_eq!(k.ok("create namespace team"), "namespace/team created\n");
        assert_eq!(k.ok("create serviceaccount robot -n team"), "serviceaccount/robot created\n");
        let ingress = "create ingress web --class=nginx --rule=shop.localhost/*=shop:80";
        assert_eq!(k.ok(ingress), "ingress.networking.k8s.io/web created\n");
        assert_eq!(k.ok("get secret s -o jsonpath={.data.token}/{.type}"), "YWJj/Opaque");
        k.file("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {a: '1', b: '2'}\n");
        k.ok("apply --validate=false -f c.yaml");
        k.file("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {b: '3'}\n");
        assert_eq!(k.ok("apply --validate=false -f c.yaml"), "configmap/d configured\n");
        assert_eq!(k.ok("get cm d -o jsonpath={.data}"), r#"{"b":"3"}"#);
        assert!(k.refused("diff -f c.yaml").contains("could not find the requested resource"));
        assert_eq!(k.ok("auth can-i delete rp"), "yes\n");
        assert!(k.ok("api-resources").contains("resetportals"));
        assert!(k.ok("get all,secrets,cm,ns,events,leases,crds -A").contains("team"));
        k.ok("delete namespace team --timeout=20s");
        assert_eq!(k.ok("delete rp initech --timeout=20s"), "resetportal.portalkeeper.dev \"initech\" deleted\n");
        assert!(k.refused("get rp initech").contains("NotFound"));
    });
}

#[test]
fn without_the_token_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(folder.path());
    for peer in kubectls() {
        let config = std::fs::read_to_string(&sandbox.kubeconfig).unwrap();
        let line = config.lines().find(|line| line.contains("token:")).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, config.replace(line, "    token: another")).unwrap();
        let output = Command::new(&peer.program)
            .env_clear()
            .env("HOME", folder.path())
            .args(["--kubeconfig", other.to_str().unwrap(), "get", "secrets", "-A"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains("Unauthorized") || text(&output.stderr).contains("logged in"),
            "{}",
            text(&output.stderr)
        );
        assert!(text(&output.stdout).is_empty());
    }
}
