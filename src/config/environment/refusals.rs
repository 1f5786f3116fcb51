//! Values that would be taken and fail later: each is refused where it is read.
use super::tests::{CADDY, NPM, read};
use super::*;
use crate::config::rules;

#[test]
fn wrong_texts_are_told_by_their_own_rule() {
    let npm = |name: &'static str, value: &'static str| {
        let pairs: Vec<_> = NPM.iter().copied().filter(|(n, _)| *n != name).chain([(name, value)]).collect();
        read(&pairs).unwrap_err()
    };
    for value in ["http://10.0.0.5", "a b", "a/b"] {
        let words =
            "allowed is a host name, an IPv4 address or an IPv6 address in brackets, without scheme, port and path";
        assert_eq!(npm("NPM_FORWARD_HOST", value), [format!("NPM_FORWARD_HOST={value} is not valid: {words}")]);
    }
    assert!(npm("NPM_FORWARD_HOST", "http://me:hunter2@10.0.0.5")[0].starts_with("NPM_FORWARD_HOST=…@10.0.0.5 is not"));
    for value in ["-5", "0", "99999999999", "a\nb"] {
        let told = npm("NPM_CERTIFICATE", value);
        assert_eq!(told.len(), 1, "{told:?}");
        let start = format!("NPM_CERTIFICATE={} is not valid: allowed are letsencrypt,", value.escape_debug());
        assert!(told[0].starts_with(&start), "{told:?}");
    }
    let caddy = |name: &'static str, value: &'static str| read(&[&CADDY[..], &[(name, value)]].concat()).unwrap_err();
    for (name, value, words) in [
        ("CF_ACCOUNT_ID", "../x", "allowed is the id of a Cloudflare account"),
        (
            "CADDY_LISTEN",
            "8443",
            "allowed is a listen address of Caddy that ends with a port from 1 to 65535, like :8443",
        ),
        (
            "CADDY_LISTEN",
            ":99999",
            "allowed is a listen address of Caddy that ends with a port from 1 to 65535, like :8443",
        ),
        ("RESET_SMTP_HOST", "mail example", "allowed is a host name or an address alone"),
        ("RESET_SMTP_HOST", "mail.example.com:25", "allowed is a host name or an address alone"),
    ] {
        let told = caddy(name, value);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("{name}={value} is not valid: {words}")), "{told:?}");
    }
    let server = [("MX_SERVER", "eagle mxlogin"), ("MX_USER", "a b"), ("MX_API_KEY", "key")];
    let told = read(&[&CADDY[..], &server].concat()).unwrap_err();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("MX_SERVER=eagle mxlogin is not") && told[1].starts_with("MX_USER=a b is not"),
        "{told:?}"
    );
    for (name, value, words) in [
        ("INGRESS_CLASS_NAME", "Public", "a Kubernetes name of up to 253 characters"),
        ("INGRESS_NAMESPACE", "a.b", "a Kubernetes name of up to 63 characters"),
        ("INGRESS_SERVICE_NAME", "my service", "a Kubernetes name of up to 63 characters"),
        ("INGRESS_TLS_SECRET", "a/b", "a Kubernetes name of up to 253 characters"),
        ("INGRESS_CLUSTER_ISSUER", "a b", "a Kubernetes name of up to 253 characters"),
        ("INGRESS_ANNOTATIONS", "bad key!=x", "a key like name or example.com/name"),
    ] {
        let told = read(&[("REVERSE_PROXY_BACKEND", "ingress"), (name, value)]).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(name) && told[0].contains(&format!("is not valid: allowed is {words}")),
            "{told:?}"
        );
    }
}

#[test]
fn a_token_with_a_blank_or_a_line_end_in_it_is_refused_and_not_shown() {
    let mx = [("MX_SERVER", "eagle.mxlogin.com"), ("MX_USER", "me")];
    for name in ["CADDY_ADMIN_TOKEN", "CF_API_TOKEN", "MX_API_KEY"] {
        for value in ["hunter\n2", "hunter 2", "hunter\t2"] {
            let others = CADDY.iter().chain(&mx).copied().filter(|(n, _)| *n != name);
            let mut pairs: Vec<_> = others.chain([("MX_API_KEY", "key")]).filter(|(n, _)| *n != name).collect();
            pairs.push((name, value));
            let words = "it holds a blank, a line end or another character that no token has";
            assert_eq!(read(&pairs).unwrap_err(), [format!("{name} is set, but {words}")]);
        }
    }
    let pairs: Vec<_> = NPM.iter().copied().filter(|(n, _)| *n != "NPM_SECRET").collect();
    let with = |secret: &'static str| read(&[&pairs[..], &[("NPM_SECRET", secret)]].concat());
    let words = "NPM_SECRET is set, but it holds a line end or another control character, which no password has";
    assert_eq!(with("hunter\r\n2").unwrap_err(), [words]);
    assert!(with("correct horse").is_ok());
}

#[test]
fn mails_go_in_the_clear_to_this_machine_only() {
    let with = |host: &'static str| {
        let smtp = [("RESET_SMTP_HOST", host), ("RESET_SMTP_USE_TLS", "false")];
        read(&[&CADDY[..], &smtp].concat())
    };
    for host in ["localhost", "127.0.0.1", "::1"] {
        assert!(with(host).is_ok(), "{host}");
    }
    for host in ["mail.example.com", "10.0.0.5", "127.0.0.1.example.com", "localhost.example.com"] {
        let words = rules::ON_THIS_MACHINE.words;
        let told = format!("RESET_SMTP_USE_TLS is set, but it is false and RESET_SMTP_HOST is {host}: {words}");
        assert_eq!(with(host).unwrap_err(), [told]);
    }
}

#[test]
fn a_secret_comes_from_one_place_only() {
    let twice = [&CADDY[..], &[("CF_API_TOKEN_FILE", "/run/secrets/token")]].concat();
    let words = "CF_API_TOKEN is set, but CF_API_TOKEN_FILE is set, too: leave one of them out";
    assert_eq!(read(&twice).unwrap_err(), [words]);
    // and an empty one is none
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "token-of-a-file\n").unwrap();
    let rest: Vec<_> = CADDY.iter().copied().filter(|(name, _)| *name != "CF_API_TOKEN").collect();
    let file = [("CF_API_TOKEN", ""), ("CF_API_TOKEN_FILE", path.to_str().unwrap())];
    let class = read(&[&rest[..], &file].concat()).unwrap().class.unwrap();
    assert_eq!(class.cloudflare.unwrap().api_token.expose(), "token-of-a-file");
}

#[test]
fn caddys_server_is_chosen_and_an_authority_that_nobody_looks_at_is_refused() {
    let with = |more: &[(&'static str, &'static str)]| read(&[&CADDY[..], more].concat());
    let class = with(&[("CADDY_LISTEN", ":8443")]).unwrap().class.unwrap();
    let ProxyVariables::Caddy(caddy) = class.proxy else { panic!("caddy") };
    assert_eq!(caddy.listen.as_deref(), Some(":8443"));
    let rest: Vec<_> = CADDY.iter().copied().filter(|(name, _)| *name != "CADDY_ADMIN_URL").collect();
    let more = [
        ("CADDY_ADMIN_URL", "https://127.0.0.1:2021"),
        ("CADDY_TLS_VERIFY", "false"),
        ("CADDY_ADMIN_CA", "an authority"),
    ];
    assert_eq!(
        read(&[&rest[..], &more].concat()).unwrap_err(),
        ["CADDY_ADMIN_CA is set, but with CADDY_TLS_VERIFY=false nobody looks at it"]
    );
}
