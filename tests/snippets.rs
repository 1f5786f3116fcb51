//! The printed snippets, checked by the programs they are for; and the command that prints them.
use std::process::Command;

use portalkeeper::api::HostName;
use portalkeeper::backends::manual::{Dialect, Edge, Purpose, snippet};

use crate::front::{at_host, check, check_text, place, printed, programs};
use crate::peers::kubernetes_validate;

const HOST: &str = "reset.acme.example";

#[test]
fn nginx_haproxy_apache_and_caddy_accept_their_snippets() {
    for (peer, dialect) in programs() {
        check(&peer, dialect, &place(Edge::Direct, "127.0.0.1:5000"));
        // Caddy 2.6 has no such server options.
        if peer.name != "caddy 2.6" {
            check(&peer, dialect, &place(Edge::Cloudflare, "127.0.0.1:5000"));
        }
    }
}

/// With what surrounds it, which no program checks here.
#[test]
fn what_is_printed_for_yaml_readers_is_yaml_as_it_is_also_with_two_portals_and_the_main_app() {
    let first = place(Edge::Direct, "127.0.0.1:5000");
    let places = [
        first.clone(),
        at_host(&first, "reset.globex.example", Purpose::Portal),
        at_host(&first, "mxtools.example.com", Purpose::MainApp),
    ];
    for dialect in [Dialect::Traefik, Dialect::Pangolin, Dialect::Ingress] {
        let text = printed(dialect, &places);
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        let all = serde_json::to_string(&documents).expect("JSON");
        assert!(places.iter().all(|place| all.contains(place.host.as_str())), "{all}");
        assert!(documents.iter().all(serde_json::Value::is_object), "{all}");
    }
}

#[test]
fn an_origin_by_a_name_that_leads_nowhere_stops_no_proxy() {
    for edge in [Edge::Direct, Edge::Cloudflare] {
        let place = place(edge, "nowhere.invalid:5000");
        for (peer, dialect) in programs().into_iter().filter(|(peer, _)| peer.name != "caddy 2.6") {
            check(&peer, dialect, &place);
        }
    }
}

#[test]
fn the_lines_for_ipv6_are_accepted_where_the_machine_has_it() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let place = place(Edge::Direct, "127.0.0.1:5000");
    for (peer, dialect) in programs() {
        let text = printed(dialect, std::slice::from_ref(&place));
        let open = text.replace("# listen [::]", "listen [::]").replace("# bind :::443", "bind :::443");
        let listed = matches!(dialect, Dialect::NginxOld | Dialect::Haproxy);
        assert_eq!(open != text, listed, "{}: Apache and Caddy listen there by themselves", peer.name);
        check_text(&peer, dialect, &open, std::slice::from_ref(&place.host));
    }
}

#[test]
fn a_proxied_and_a_direct_portal_may_stand_in_one_haproxy() {
    let direct = place(Edge::Direct, "127.0.0.1:5000");
    let proxied = at_host(&place(Edge::Cloudflare, "127.0.0.1:5000"), "reset.globex.localhost", Purpose::Portal);
    let more = snippet(Dialect::Haproxy, &proxied);
    // given one portal's text, and of the other's the backend, which is a new one, and its line
    let (backend, _) = more.once.split_once("# Never a second frontend").expect("a frontend");
    let text = [backend, &printed(Dialect::Haproxy, std::slice::from_ref(&direct)), &more.each].concat();
    for (peer, dialect) in programs().into_iter().filter(|(_, dialect)| *dialect == Dialect::Haproxy) {
        let hosts: Vec<HostName> = vec![direct.host.clone(), proxied.host.clone()];
        check_text(&peer, dialect, &text, &hosts);
    }
}

#[test]
fn the_ingress_is_valid_to_kubernetes() {
    let place = place(Edge::Direct, "127.0.0.1:5000");
    let Some(validate) = kubernetes_validate() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ingress.yaml");
    std::fs::write(&file, snippet(Dialect::Ingress, &place).text()).expect("written");
    let checked = Command::new(&validate.program).args(["--strict", "--quiet"]).arg(&file).output().expect("started");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// Exit code, standard output and standard error of the real program.
fn portalkeeper(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_portalkeeper"))
        .args(arguments)
        .env_remove("MANUAL_PROXY_ORIGIN")
        .env_remove("RESET_PORTAL_CNAME_TARGET")
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_prints_record_and_snippets() {
    let (code, out, _) = portalkeeper(&["snippets", HOST, "--cname-target", "edge.example.net", "--proxy", "nginx"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("reset.acme.example  CNAME  edge.example.net  (proxied)"), "{out}");
    assert!(out.contains("proxy_pass http://127.0.0.1:5000;") && !out.contains("HAProxy"), "{out}");
    assert!(out.contains("TRUSTED_PROXY_COUNT=1") && out.contains("set_real_ip_from 173.245.48.0/20;"), "{out}");
    let direct = ["snippets", HOST, "--edge", "direct", "--proxy", "traefik"];
    let (_, out, _) = portalkeeper(&direct);
    assert!(out.contains("(not proxied)") && out.contains("rule=Host(`reset.acme.example`)"), "{out}");
    // what two names need together is told with the first one
    let long = "reset.gemeindeverwaltung-musterstadt.example.com";
    let (_, out, _) = portalkeeper(&["snippets", long, "--proxy", "nginx"]);
    assert!(out.contains("# With more than one host") && out.contains("server_names_hash_bucket_size 512;"), "{out}");
    let (_, out, _) = portalkeeper(&["snippets", HOST, "--proxy", "npm"]);
    assert!(out.contains("TRUSTED_PROXY_CIDRS to `cloudflare`"), "{out}");
    let (_, out, _) = portalkeeper(&["snippets", "mxtools.example.com", "--main-app", "--proxy", "npm"]);
    assert!(out.contains("mxtools.example.com") && out.contains("# There are no admin pages yet"), "{out}");
}

#[test]
fn all_around_the_snippets_is_a_comment() {
    for dialect in Dialect::ALL {
        let (_, out, _) = portalkeeper(&["snippets", HOST, "--proxy", dialect.name()]);
        let text = snippet(dialect, &at_host(&place(Edge::Cloudflare, "127.0.0.1:5000"), HOST, Purpose::Portal)).text();
        let around = out.strip_suffix(&text).unwrap_or_else(|| panic!("{out} does not end with {text}"));
        assert!(around.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{around}");
    }
}

#[test]
fn http_before_the_origin_is_cut_off_and_https_is_refused() {
    for origin in ["http://pages:5000/", "HTTP://pages:5000", "pages:5000"] {
        let (_, printed, _) = portalkeeper(&["snippets", HOST, "--proxy", "nginx", "--origin", origin]);
        assert!(printed.contains("set $portalkeeper pages:5000;"), "{origin}: {printed}");
    }
    let (code, _, told) = portalkeeper(&["snippets", HOST, "--origin", "https://pages:5000"]);
    let words = "portalkeeper: --origin: the origin `https://pages:5000` has a scheme other than http, in which the pages are \
                 served; write it as in `127.0.0.1:5000`\n";
    assert_eq!((code, told.as_str()), (Some(1), words));
}

/// The daemon reads its variables from `.env`, too, and the command is to print what it does.
#[test]
fn the_command_knows_the_daemons_variables_also_from_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = |file: &str, variables: &[(&str, &str)], more: &[&str]| {
        std::fs::write(folder.path().join(".env"), file).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_portalkeeper"))
            .args(["snippets", HOST, "--proxy", "nginx"])
            .args(more)
            .env_remove("MANUAL_PROXY_ORIGIN")
            .env_remove("RESET_PORTAL_CNAME_TARGET")
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .output()
            .expect("the program starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    // given both in the file
    let file = "MANUAL_PROXY_ORIGIN=http://pages:5001\nRESET_PORTAL_CNAME_TARGET=edge.example.net\n";
    let text = printed(file, &[], &[]);
    assert!(text.contains("CNAME  edge.example.net ") && text.contains("set $portalkeeper pages:5001;"), "{text}");
    // then the process' own come before them, and flags before those
    let text = printed(file, &[("MANUAL_PROXY_ORIGIN", "own:5002")], &["--cname-target", "flag.example.net"]);
    assert!(text.contains("CNAME  flag.example.net ") && text.contains("set $portalkeeper own:5002;"), "{text}");
    // an empty one is none
    let text = printed("MANUAL_PROXY_ORIGIN=\n", &[("RESET_PORTAL_CNAME_TARGET", "")], &[]);
    assert!(text.contains("the public name of your proxy") && text.contains("http://127.0.0.1:5000;"), "{text}");
    // and a wrong one is named
    let text = printed("MANUAL_PROXY_ORIGIN=https://pages:5001\n", &[], &[]);
    assert!(
        text.starts_with("portalkeeper: MANUAL_PROXY_ORIGIN: the origin `https://pages:5001` has a scheme"),
        "{text}"
    );
    let text = printed("RESET_PORTAL_CNAME_TARGET=Edge.Example.net\n", &[], &[]);
    assert!(
        text.starts_with("portalkeeper: RESET_PORTAL_CNAME_TARGET: the CNAME target `Edge.Example.net` is"),
        "{text}"
    );
    let text = printed("MANUAL_PROXY_ORIGIN 'x\n", &[], &[]);
    assert!(text.starts_with("portalkeeper: .env is set, but a line cannot be read"), "{text}");
}

#[test]
fn the_command_refuses_what_it_cannot_use_and_says_why() {
    for (arguments, message) in [
        (
            ["snippets", "Reset.Acme.example", "--proxy", "nginx"],
            "portalkeeper: the portal's host `Reset.Acme.example` is not in canonical form; write `reset.acme.example`\n",
        ),
        (
            ["snippets", "a.com`)||host(`x", "--proxy", "nginx"],
            "portalkeeper: the portal's host `a.com`)||host(`x` is not a host name: letters a-z, digits and hyphens in labels of 1 to 63 characters, joined by dots\n",
        ),
        (
            ["snippets", HOST, "--origin", "127.0.0.1"],
            "portalkeeper: --origin: the origin `127.0.0.1` has no port from 1 to 65535; write it as in `127.0.0.1:5000`\n",
        ),
        (
            ["snippets", HOST, "--cname-target", HOST],
            "portalkeeper: --cname-target: the CNAME target `reset.acme.example` is the portal's host itself; name the public host of your proxy\n",
        ),
        (
            ["snippets", HOST, "--proxy", "iis"],
            "portalkeeper: `iis` is not a known proxy; one of nginx, nginx-old, caddy, haproxy, apache, traefik, swag, ingress, npm, pangolin is\n",
        ),
        (
            ["snippets", HOST, "--edge", "akamai"],
            "portalkeeper: `akamai` is not known to stand before a proxy; one of direct, cloudflare is\n",
        ),
    ] {
        assert_eq!(portalkeeper(&arguments), (Some(1), String::new(), message.to_owned()));
    }
}
