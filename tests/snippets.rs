//! The printed snippets, checked by the programs they are for; and the command that prints them.
use std::path::Path;
use std::process::Command;

use portalkeeper::api::{HostName, Origin};
use portalkeeper::backends::manual::{Dialect, snippet};

use crate::peers::{Peer, apache_modules, caddies, free_port, libraries, proxies};

const HOST: &str = "reset.acme.example";

/// The snippet for `dialect` with the certificate's folder and the port made the test's own.
fn text(dialect: Dialect, folder: &Path) -> String {
    let host = HostName::parse(HOST).expect("a host name");
    let origin = Origin::parse("127.0.0.1:5000").expect("an origin");
    let folder = folder.display().to_string();
    let port = free_port();
    snippet(dialect, &host, &origin)
        .text
        .replace("/etc/ssl/portals", &folder)
        .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
        .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
}

fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    std::fs::write(folder.join(format!("{HOST}.crt")), &certificate).expect("written");
    std::fs::write(folder.join(format!("{HOST}.key")), &key).expect("written");
    std::fs::write(folder.join(format!("{HOST}.pem")), certificate + &key).expect("written");
}

/// Runs the program's own check and gives what it printed; the check must pass.
fn check(peer: &Peer, folder: &Path, arguments: &[&str]) {
    let output = Command::new(&peer.program)
        .args(arguments)
        .env("LD_LIBRARY_PATH", libraries())
        .env("HOME", folder)
        .current_dir(folder)
        .output()
        .expect("the program starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} refuses our snippet:\n{said}", peer.name);
}

#[test]
fn nginx_haproxy_and_apache_accept_their_snippets() {
    for peer in proxies() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        certificate(path);
        match peer.name {
            "nginx" => {
                let whole = format!(
                    "pid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{own}}}\n",
                    temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                        .map(|kind| format!("{kind}_temp_path {kind};\n"))
                        .concat(),
                    own = text(Dialect::Nginx, path)
                );
                std::fs::write(path.join("nginx.conf"), whole).expect("written");
                let prefix = format!("{}/", path.display());
                check(&peer, path, &["-t", "-q", "-e", "stderr", "-p", &prefix, "-c", "nginx.conf"]);
            }
            "haproxy" => {
                let defaults = "defaults\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\n";
                std::fs::write(path.join("haproxy.cfg"), defaults.to_owned() + &text(Dialect::Haproxy, path))
                    .expect("written");
                check(&peer, path, &["-c", "-f", "haproxy.cfg"]);
            }
            _ => {
                let modules = ["mpm_event", "authz_core", "headers", "ssl", "socache_shmcb", "proxy", "proxy_http"]
                    .map(|m| format!("LoadModule {m}_module {}/mod_{m}.so\n", apache_modules().display()))
                    .concat();
                let frame = format!(
                    "ServerRoot {0}\nServerName localhost\nPidFile {0}/apache.pid\nErrorLog {0}/error.log\n\
                     Listen 127.0.0.1:{1}\n",
                    path.display(),
                    free_port()
                );
                let whole = modules + &frame + &text(Dialect::Apache, path);
                std::fs::write(path.join("apache.conf"), whole).expect("written");
                let file = path.join("apache.conf").display().to_string();
                check(&peer, path, &["-t", "-f", &file]);
            }
        }
    }
}

#[test]
fn caddy_accepts_its_snippet() {
    for peer in caddies() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("Caddyfile"), text(Dialect::Caddy, folder.path())).expect("written");
        check(&peer, folder.path(), &["adapt", "--config", "Caddyfile", "--adapter", "caddyfile"]);
    }
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
            "portalkeeper: the origin `127.0.0.1` has no port; write it as in `127.0.0.1:5000`\n",
        ),
        (
            ["snippets", HOST, "--proxy", "iis"],
            "portalkeeper: `iis` is not a known proxy; one of nginx, caddy, haproxy, apache is\n",
        ),
    ] {
        assert_eq!(portalkeeper(&arguments), (Some(1), String::new(), message.to_owned()));
    }
}
