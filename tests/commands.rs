//! The commands as people type them: what they print, what they say when something is wrong.
use std::net::TcpListener;

use crate::process::{Sandbox, output, text};
use crate::world::raw;

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_greets_keeps_its_data_and_ends_with_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let first = Sandbox::start(folder.path());
    for words in [
        "the inbox",
        "the DNS records",
        "kubeconfig",
        "get resetportals",
        "describe resetportal acme",
        "delete resetportal globex",
    ] {
        assert!(first.greeting.contains(words), "no {words} in {}", first.greeting);
    }
    // the two portals, the overview and the pages of the simulators are there
    let mut served = 0;
    for _ in 0..500 {
        served = raw(first.pages, "GET", "reset.acme.localhost", "/", &[], "").await.status;
        if served == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(served, 200);
    for path in ["/", "/inbox", "/cloudflare/records/ui", "/mxroute/ui", "/caddy/config/"] {
        assert_eq!(raw(first.simulators, "GET", "127.0.0.1", path, &[], "").await.status, 200, "{path}");
    }
    let records =
        |answer: &str| answer.contains("password.globex.localhost") && answer.contains("reset.acme.localhost");
    let mut page = String::new();
    for _ in 0..500 {
        page = raw(first.simulators, "GET", "127.0.0.1", "/cloudflare/records/ui", &[], "").await.body;
        if records(&page) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(records(&page), "{page}");
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    // a second one on the same data is refused
    let free = "127.0.0.1:0";
    let ports = ["--listen", free, "--api-listen", free, "--health-listen", free, "--simulators-listen", free];
    let second = output(folder.path(), &[&["sandbox", "--data", data], &ports[..]].concat());
    assert_eq!(
        text(&second.stderr),
        format!(
            "portalkeeper: the data directory {data} is in use by another Portalkeeper; stop it, or choose another with --data\n"
        )
    );
    // recovery addresses, beside the running program
    let listed = text(&output(folder.path(), &["recovery", "--data", data, "list"]).stdout);
    assert!(listed.contains("ann@acme.localhost,ann.private@example.net\n"), "{listed}");
    let set = output(folder.path(), &["recovery", "--data", data, "set", "ann@acme.localhost", "ann@home.example"]);
    assert_eq!(text(&set.stdout), "ann@acme.localhost: set\n");
    let plan = text(&output(folder.path(), &["plan", "--data", data]).stdout);
    assert_eq!(plan, "default/acme\n  as wanted\ndefault/globex\n  as wanted\n2 portal(s), 0 change(s)\n");
    let mut shown = String::new();
    for _ in 0..100 {
        shown = text(&output(folder.path(), &["get", "--data", data]).stdout);
        if shown.matches(" True ").count() == 2 {
            break;
        }
    }
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAMESPACE", "NAME", "HOST", "BACKEND", "READY", "REASON"]);
    assert_eq!(lines[1], ["default", "acme", "reset.acme.localhost", "caddy", "True", "Live"]);
    let described = text(&output(folder.path(), &["describe", "acme", "--data", data]).stdout);
    for words in [
        "default/acme\n",
        "page        http://reset.acme.localhost:",
        "  Live             True  Proved",
        "in cloudflare\n",
        "RouteChanged",
    ] {
        assert!(described.contains(words), "no {words:?} in {described}");
    }
    let missing = text(&output(folder.path(), &["describe", "none", "--data", data]).stderr);
    assert_eq!(missing, "portalkeeper: there is no portal none in namespace default; `portalkeeper get` lists them\n");
    assert_eq!(first.interrupt(), 0);
    let gone = text(&output(folder.path(), &["get", "--data", data, "--log", "off"]).stderr);
    assert!(gone.ends_with("cannot be reached; is the program or the cluster that it belongs to running?\n"), "{gone}");
    // a second start finds everything again
    let again = Sandbox::start(folder.path());
    let page = raw(again.simulators, "GET", "127.0.0.1", "/cloudflare/records/ui", &[], "").await.body;
    assert!(records(&page), "{page}");
    let listed = text(&output(folder.path(), &["recovery", "--data", data, "list"]).stdout);
    assert!(listed.contains("ann@acme.localhost,ann@home.example\n"), "{listed}");
}

#[test]
fn a_port_in_use_names_the_flag_that_chooses_another() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for flag in ["--listen", "--api-listen", "--health-listen", "--simulators-listen"] {
        let mut arguments = vec!["sandbox", "--data", "data"];
        for other in ["--listen", "--api-listen", "--health-listen", "--simulators-listen"] {
            arguments.extend([other, if other == flag { &address } else { free }]);
        }
        let ended = output(folder.path(), &arguments);
        assert!(!ended.status.success());
        assert_eq!(
            text(&ended.stderr),
            format!(
                "portalkeeper: cannot listen on {address}: the port is in use by another program; choose another address with {flag}\n"
            )
        );
    }
}

#[test]
fn wrong_variables_are_refused_at_start_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let env = "REVERSE_PROXY_BACKEND=nginx\nTRUSTED_PROXY_COUNT=many\nCF_API_TOKEN=very-secret-token\n";
    std::fs::write(folder.path().join(".env"), env).unwrap();
    let free = "127.0.0.1:0";
    let arguments = ["standalone", "--data", "data", "--listen", free, "--api-listen", free, "--health-listen", free];
    let ended = output(folder.path(), &arguments);
    assert!(!ended.status.success());
    assert_eq!(
        text(&ended.stderr),
        "portalkeeper: the environment has 2 wrong value(s):\n  \
         REVERSE_PROXY_BACKEND=nginx is not valid: allowed are npm, cloudflare_tunnel, caddy, traefik, ingress and manual\n  \
         TRUSTED_PROXY_COUNT=many is not valid: allowed is a number from 0 to 10\n"
    );
}

#[test]
fn names_that_are_none_are_refused_at_start_too() {
    let folder = tempfile::tempdir().unwrap();
    let env = "REVERSE_PROXY_BACKEND=manual\nRESET_PORTAL_CNAME_TARGET=Proxy.Example.com\nRESET_SMTP_HOST=mail.example.com\n\
               RESET_SMTP_FROM=reset\nADMIN_HOST=10.0.0.1\n";
    std::fs::write(folder.path().join(".env"), env).unwrap();
    let free = "127.0.0.1:0";
    let arguments = ["standalone", "--data", "data", "--listen", free, "--api-listen", free, "--health-listen", free];
    assert_eq!(
        text(&output(folder.path(), &arguments).stderr),
        "portalkeeper: the environment has 3 wrong value(s):\n  \
         RESET_PORTAL_CNAME_TARGET=Proxy.Example.com is not valid: `Proxy.Example.com` is not in canonical form; write `proxy.example.com`\n  \
         ADMIN_HOST=10.0.0.1 is not valid: `10.0.0.1` is an IP address; a host name is needed\n  \
         RESET_SMTP_FROM=reset is not valid: `reset` is not a mail address of the form `name@example.com`\n"
    );
}

#[test]
fn what_the_api_does_not_take_of_the_variables_is_told_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let long = "a".repeat(500);
    let env = format!(
        "REVERSE_PROXY_BACKEND=npm\nNPM_API_URL=http://127.0.0.1:81/{long}\nNPM_FORWARD_HOST=10.0.0.5\n\
         NPM_IDENTITY=me@example.com\nNPM_SECRET=secret-4711\nCF_API_TOKEN=token\nRESET_PORTAL_CNAME_TARGET=proxy.example.com\n"
    );
    std::fs::write(folder.path().join(".env"), env).unwrap();
    let free = "127.0.0.1:0";
    let arguments = ["standalone", "--data", "data", "--listen", free, "--api-listen", free, "--health-listen", free];
    let ended = output(folder.path(), &arguments);
    assert!(!ended.status.success());
    let words = text(&ended.stderr);
    let start = "portalkeeper: the API does not take the PortalClass \"environment\" that the variables make: \
                 proxy.npm.apiUrl (NPM_API_URL): Too long: may not be more than 500 bytes; correct the variable";
    assert!(words.lines().any(|line| line.starts_with(start)), "{words}");
}

#[test]
fn commands_without_a_running_program_say_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let missing = output(folder.path(), &["recovery", "--data", "nowhere", "list"]);
    assert_eq!(
        text(&missing.stderr),
        "portalkeeper: there is no data directory nowhere; name the one of the running program with --data\n"
    );
    // a directory that is named is the one that is meant, whatever else could be asked
    let missing = output(folder.path(), &["get", "--data", "nowhere"]);
    assert_eq!(
        text(&missing.stderr),
        "portalkeeper: there is no data directory nowhere; name the one of the running program with --data\n"
    );
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let missing = text(&output(folder.path(), &["describe", "acme", "--data", "empty"]).stderr);
    assert_eq!(
        missing,
        "portalkeeper: empty holds no kubeconfig of a standalone program; name the directory of a running one with --data, \
         or the API with --kubeconfig\n"
    );
    let ended =
        output(folder.path(), &["run", "--data", "data", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
    let words = text(&ended.stderr);
    assert!(words.starts_with("portalkeeper: cannot reach a Kubernetes API: "), "{words}");
    assert!(
        words.contains(
            "run in a cluster, set KUBECONFIG, name the data directory of a program that runs here with --data, or"
        ),
        "{words}"
    );
    let version = text(&output(folder.path(), &["--version"]).stdout);
    assert_eq!(version, format!("portalkeeper {}\n", env!("CARGO_PKG_VERSION")));
    let filter = text(&output(folder.path(), &["--log", "info,=x=y", "crds"]).stderr);
    assert!(filter.starts_with("portalkeeper: the log filter `info,=x=y` is not valid: "), "{filter}");
}

/// Kills a started program with its owner.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_works_with_any_api_that_a_kubeconfig_names() {
    use portalkeeper::apiserver::{Access, ApiServer};
    use portalkeeper::http::shutdown::Shutdown;
    // given an API in one process: here the embedded one, over HTTPS, with class and Secret
    let world = crate::world::World::stopped(None).await;
    let folder = tempfile::tempdir().unwrap();
    let server =
        ApiServer::open(&folder.path().join("api.db"), std::sync::Arc::new(portalkeeper::api::clock::SystemClock))
            .await
            .unwrap();
    let client = server.client("default");
    let (_stop, shutdown) = Shutdown::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let access = Access::prepare(folder.path(), listener.local_addr().unwrap()).unwrap();
    tokio::spawn(server.listen(listener, access, shutdown));
    let start = |pages: &str| {
        let mut command = crate::process::command(folder.path());
        command
            .env("KUBECONFIG", folder.path().join("kubeconfig"))
            .args(["run", "--data", "run", "--listen", pages, "--health-listen", "127.0.0.1:0"])
            .stderr(std::process::Stdio::piped());
        command
    };
    // when the definitions are missing, then it says so and ends
    let ended = start("127.0.0.1:0").output().unwrap();
    assert_eq!(
        text(&ended.stderr).lines().last(),
        Some(
            "portalkeeper: the custom resource definitions are not installed: apply the files of crds/ (or `portalkeeper crds`) first"
        )
    );
    // when they are there, then it reconciles and serves
    portalkeeper::app::install::definitions(&client).await.unwrap();
    for object in portalkeeper::app::sandbox::class(&world.simulators, world.pages) {
        portalkeeper::app::install::put(&client, &portalkeeper::app::install::resource(&object), &object)
            .await
            .unwrap();
    }
    // Namespaces other than the controller's own need a grant.
    let mut portal = crate::world::portal("acme", serde_json::json!({"domain": "acme.localhost"}));
    portal["metadata"]["namespace"] = "portalkeeper".into();
    portalkeeper::app::install::put(&client, &portalkeeper::app::install::resource(&portal), &portal).await.unwrap();
    let outsider = crate::world::portal("globex", serde_json::json!({"domain": "globex.localhost"}));
    portalkeeper::app::install::put(&client, &portalkeeper::app::install::resource(&outsider), &outsider)
        .await
        .unwrap();
    let _child = Child(start(&world.pages.to_string()).spawn().unwrap());
    let condition = async |namespace: &str, name: &str, condition: &str| {
        let api: kube::Api<portalkeeper::api::ResetPortal> = kube::Api::namespaced(client.clone(), namespace);
        let found = api.get(name).await.unwrap();
        crate::world::condition_of(&found, condition).map(|c| format!("{} {}: {}", c.status, c.reason, c.message))
    };
    for (namespace, name, which, wanted) in [
        ("portalkeeper", "acme", "Ready", "True Live: serving"),
        (
            "default",
            "globex",
            "Accepted",
            "False NotGranted: PortalClass \"sandbox\" has no grants; add one for namespace \"default\"",
        ),
    ] {
        let mut seen = None;
        for _ in 0..1000 {
            seen = condition(namespace, name, which).await;
            if seen.as_deref() == Some(wanted) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(seen.as_deref(), Some(wanted));
    }
    assert_eq!(raw(world.pages, "GET", "reset.acme.localhost", "/", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_prints_the_steps_of_a_move_in_their_order() {
    use kube::api::{Api, Patch, PatchParams, PostParams};
    use portalkeeper::api::{ANNOTATION_PAUSED, PortalClass, ResetPortal};
    use portalkeeper::backends::caddy::double::CaddyDouble;
    use portalkeeper::http::double::RunningDouble;
    portalkeeper::http::install_crypto_provider();
    // given a running program, and a portal that is paused right before it moves to another proxy
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(folder.path());
    let config = kube::config::Kubeconfig::read_from(&sandbox.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let portals: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    let is_ready = |portal: &ResetPortal| {
        crate::world::condition_of(portal, "Ready").is_some_and(|condition| condition.status == "True")
    };
    for name in ["acme", "globex"] {
        for _ in 0..2000 {
            if is_ready(&portals.get(name).await.unwrap()) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let caddy = RunningDouble::start(std::sync::Arc::new(CaddyDouble::new())).await.unwrap();
    let classes: Api<PortalClass> = Api::all(client);
    let mut spec = classes.get("sandbox").await.unwrap().spec;
    let former = spec.proxy.caddy.clone().unwrap().admin_url;
    spec.default = false;
    spec.cname_target = Some("other.proxies.localhost".to_owned());
    spec.proxy.caddy.as_mut().unwrap().admin_url = caddy.url.to_string();
    classes.create(&PostParams::default(), &PortalClass::new("other", spec)).await.unwrap();
    let pause = serde_json::json!({
        "metadata": {"annotations": {ANNOTATION_PAUSED: "true"}}, "spec": {"className": "other"},
    });
    portals.patch("acme", &PatchParams::default(), &Patch::Merge(&pause)).await.unwrap();
    // when the plan is asked for, then it tells what would be done and when, and nothing is
    let data = folder.path().join("data");
    let plan = text(&output(folder.path(), &["plan", "--data", data.to_str().unwrap()]).stdout);
    let (host, former) = ("reset.acme.localhost", url::Url::parse(&former).unwrap());
    let expected = format!(
        "default/acme\n  \
         would  caddy/{}: create {host} (route to {})\n  \
         would  when the new route answers at other.proxies.localhost, cloudflare: update {host} from CNAME record to \
         edge.portalkeeper.localhost, proxied to CNAME record to other.proxies.localhost, proxied\n  \
         would  when {host} is proved, caddy/{}:{}: delete {host}\n\
         default/globex\n  as wanted\n2 portal(s), 3 change(s)\n",
        caddy.address,
        sandbox.pages,
        former.host_str().unwrap(),
        former.port().unwrap(),
    );
    assert_eq!(plan, expected);
    assert_eq!(caddy.log.writes().len(), 0);
}
