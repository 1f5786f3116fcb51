//! The printed snippets, checked by the programs they are for; and the command that prints them.
use std::process::Command;

use portalkeeper::backends::manual::{Dialect, Edge, snippet};

use crate::front::{check, place, programs};
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

#[test]
fn the_ingress_is_valid_to_kubernetes_and_the_others_are_yaml() {
    let place = place(Edge::Direct, "127.0.0.1:5000");
    for dialect in [Dialect::Traefik, Dialect::Pangolin, Dialect::Ingress] {
        let value: serde_json::Value = serde_saphyr::from_str(&snippet(dialect, &place).text).expect("YAML");
        assert!(value.is_object());
    }
    let Some(validate) = kubernetes_validate() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ingress.yaml");
    std::fs::write(&file, snippet(Dialect::Ingress, &place).text).expect("written");
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
    let (_, out, _) = portalkeeper(&["snippets", "mxtools.example.com", "--main-app", "--proxy", "npm"]);
    assert!(out.contains("mxtools.example.com") && out.contains("OIDC_REDIRECT_URI"), "{out}");
}

/// The daemon cuts a scheme off MANUAL_PROXY_ORIGIN, and so does the command that has it from the same environment.
#[test]
fn a_scheme_before_the_origin_is_cut_off_as_the_daemon_does() {
    for origin in ["https://pages:5000", "http://pages:5000/", "tcp://pages:5000", " pages:5000 "] {
        let output = Command::new(env!("CARGO_BIN_EXE_portalkeeper"))
            .args(["snippets", HOST, "--proxy", "nginx"])
            .env("MANUAL_PROXY_ORIGIN", origin)
            .env_remove("RESET_PORTAL_CNAME_TARGET")
            .output()
            .expect("the program starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("proxy_pass http://pages:5000;"), "{origin}: {output:?}");
    }
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
            "portalkeeper: the origin `127.0.0.1` has no port from 1 to 65535; write it as in `127.0.0.1:5000`\n",
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
