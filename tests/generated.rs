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

#[test]
fn the_reference_pages_are_those_of_the_program() {
    for (name, expected) in portalkeeper::cli::reference::pages() {
        let found =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap_or_default();
        assert_eq!(found, expected, "docs/{name} is out of date: run `cargo run -- reference --out docs`");
    }
}

/// `proxy.caddy.listen (CADDY_LISTEN)` in messages names the field of a class and the variable that it is made from.
#[test]
fn fields_in_messages_stand_beside_their_own_variables() {
    let pair = regex::Regex::new(r"\b((?:proxy|cloudflare|smtp|mailbox)\.[A-Za-z.]+|cnameTarget) \(([A-Z][A-Z_]+)\)")
        .expect("a pattern");
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a source folder is readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source is readable");
            for both in pair.captures_iter(&text) {
                found += 1;
                let expected = portalkeeper::config::environment::named(&both[1]);
                assert_eq!(both[0], expected, "{}", path.display());
            }
        }
    }
    assert!(found > 10, "messages name their fields");
}

#[test]
fn the_manuals_variables_are_all_known() {
    // Those of the manual that concern what is built so far, and the addresses that can be pointed elsewhere.
    for name in [
        "REVERSE_PROXY_BACKEND",
        "RESET_PORTAL_CNAME_TARGET",
        "CF_API_TOKEN",
        "CF_ACCOUNT_ID",
        "CF_ORIGIN_CA_KEY",
        "CF_API_URL",
        "CADDY_ADMIN_URL",
        "CADDY_ORIGIN",
        "TRAEFIK_DYNAMIC_DIR",
        "TRAEFIK_ORIGIN_URL",
        "TRAEFIK_CERT_RESOLVER",
        "MANUAL_PROXY_ORIGIN",
        "FORCE_HTTPS",
        "TRUSTED_PROXY_COUNT",
        "RESET_SMTP_HOST",
        "RESET_SMTP_PORT",
        "RESET_SMTP_USER",
        "RESET_SMTP_PASSWORD",
        "RESET_SMTP_FROM",
        "RESET_SMTP_USE_TLS",
        "MX_SERVER",
        "MX_USER",
        "MX_API_KEY",
        "MX_API_URL",
    ] {
        assert!(portalkeeper::config::environment::VARIABLES.iter().any(|v| v.name == name), "{name}");
    }
}
