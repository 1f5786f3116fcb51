//! Every variable, right and wrong.
use super::*;
use crate::config::Secret;

pub(super) fn read(pairs: &[(&str, &str)]) -> Result<Environment, Vec<String>> {
    let pairs: BTreeMap<String, String> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Environment::read(&|name| pairs.get(name).cloned())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

pub(super) const CADDY: [(&str, &str); 5] = [
    ("REVERSE_PROXY_BACKEND", "caddy"),
    ("CADDY_ADMIN_URL", "http://127.0.0.1:2019"),
    ("CADDY_ORIGIN", "http://127.0.0.1:5000"),
    ("CF_API_TOKEN", "token-1234"),
    ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
];

#[test]
fn nothing_set_is_no_class() {
    let environment = read(&[]).unwrap();
    assert_eq!((environment.class, environment.force_https, environment.trusted_proxy_count), (None, false, 1));
}

#[test]
fn the_manuals_caddy_example_is_read() {
    let class = read(&CADDY).unwrap().class.unwrap();
    let ProxyVariables::Caddy(caddy) = &class.proxy else { panic!("caddy") };
    assert_eq!(caddy.origin, "http://127.0.0.1:5000", "whoever uses it knows what it means");
    assert_eq!(class.cloudflare.unwrap().api_token.expose(), "token-1234");
}

#[test]
fn what_proves_us_to_caddys_admin_endpoint_is_read_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key, ca) =
        (file("tls.crt", "a certificate\n"), file("tls.key", "a key"), file("ca.crt", "an authority"));
    let with = |url: &str, more: &[(&str, &str)]| {
        let rest = CADDY.iter().filter(|(name, _)| *name != "CADDY_ADMIN_URL");
        let pairs: Vec<_> = rest.chain(&[("CADDY_ADMIN_URL", url)]).chain(more).copied().collect();
        read(&pairs)
    };
    let all = [
        ("CADDY_ADMIN_CLIENT_CERT_FILE", cert.as_str()),
        ("CADDY_ADMIN_CLIENT_KEY_FILE", key.as_str()),
        ("CADDY_ADMIN_CA_FILE", ca.as_str()),
    ];
    let class = with("https://127.0.0.1:2021", &all).unwrap().class.unwrap();
    let ProxyVariables::Caddy(caddy) = class.proxy else { panic!("caddy") };
    let shown = |secret: Option<Secret>| secret.unwrap().expose().to_owned();
    assert_eq!(shown(caddy.client_certificate), "a certificate");
    assert_eq!((shown(caddy.client_key), shown(caddy.ca)), ("a key".to_owned(), "an authority".to_owned()));
    assert_eq!(
        with("https://127.0.0.1:2021", &all[1..]).unwrap_err(),
        ["CADDY_ADMIN_CLIENT_CERT is not set: a client certificate and its key belong together"]
    );
    assert_eq!(
        with("http://127.0.0.1:2019", &all).unwrap_err(),
        [
            "CADDY_ADMIN_CLIENT_CERT is set, but CADDY_ADMIN_URL is no https:// address, so no certificate is shown there",
            "CADDY_ADMIN_CA is set, but CADDY_ADMIN_URL is no https:// address, so no certificate is shown there",
        ]
    );
    let gone = [("CADDY_ADMIN_CA_FILE", "/nowhere/ca.crt")];
    let words = with("https://127.0.0.1:2021", &gone).unwrap_err();
    assert_eq!(words.len(), 1);
    assert!(words[0].starts_with("CADDY_ADMIN_CA is set, but the file /nowhere/ca.crt cannot be read: "), "{words:?}");
}

pub(super) const NPM: [(&str, &str); 6] = [
    ("NPM_API_URL", "http://npm:81"),
    ("NPM_IDENTITY", "me@example.com"),
    ("NPM_SECRET", "npm-secret-1"),
    ("NPM_FORWARD_HOST", "10.0.0.5"),
    ("CF_API_TOKEN", "token-1234"),
    ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
];

#[test]
fn npm_is_the_default_backend() {
    let npm = |more: &[(&str, &str)]| {
        let pairs: Vec<_> = NPM.iter().chain(more).copied().collect();
        match read(&pairs).unwrap().class.unwrap().proxy {
            ProxyVariables::Npm(npm) => npm,
            other => panic!("{other:?}"),
        }
    };
    let plain = npm(&[]);
    assert_eq!((plain.forward_host.as_str(), plain.forward_port, plain.verify_tls), ("10.0.0.5", 5000, true));
    assert_eq!(plain.certificate, NpmCertificateVariable::LetsEncrypt);
    assert_eq!(npm(&[("REVERSE_PROXY_BACKEND", "npm")]), plain);
    let certificate = |text| npm(&[("NPM_CERTIFICATE", text)]).certificate;
    assert_eq!(certificate("none"), NpmCertificateVariable::None);
    assert_eq!(certificate("12"), NpmCertificateVariable::Id(12));
    assert_eq!(certificate("my wildcard"), NpmCertificateVariable::Name("my wildcard".into()));
    assert_eq!(npm(&[("CF_ORIGIN_CA_KEY", "v1.0-x")]).certificate, NpmCertificateVariable::OriginCa);
}

#[test]
fn each_missing_variable_of_npm_is_told() {
    assert_eq!(
        read(&[("NPM_API_URL", "http://npm:81"), ("NPM_FORWARD_PORT", "0")]).unwrap_err(),
        [
            "NPM_IDENTITY is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs the login of an NPM user",
            "NPM_SECRET is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs the password of that user",
            "NPM_FORWARD_HOST is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs the address under which NPM finds this program",
            "NPM_FORWARD_PORT=0 is not valid: allowed is a port, 1 to 65535",
        ]
    );
}

#[test]
fn manual_mode_makes_nothing_even_with_a_token() {
    let class = read(&[("REVERSE_PROXY_BACKEND", "manual"), ("CF_API_TOKEN", "t")]).unwrap().class.unwrap();
    assert_eq!(class.proxy, ProxyVariables::Manual { origin: "127.0.0.1:5000".into() });
    assert_eq!(class.cloudflare, None);
}

#[test]
fn each_wrong_value_is_told_with_its_name_and_what_is_allowed() {
    let wrong = |pairs: &[(&str, &str)]| read(pairs).unwrap_err();
    assert_eq!(
        wrong(&[("CF_API_TOKEN", "secret-token-1")])[0],
        "NPM_API_URL is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs NPM's admin address, like http://127.0.0.1:81"
    );
    assert_eq!(
        wrong(&[("REVERSE_PROXY_BACKEND", "nginx")]),
        [
            "REVERSE_PROXY_BACKEND=nginx is not valid: allowed are npm, cloudflare_tunnel, caddy, traefik, ingress and manual"
        ]
    );
    assert_eq!(
        wrong(&[("REVERSE_PROXY_BACKEND", "caddy"), ("CADDY_ADMIN_URL", "127.0.0.1:2019")]),
        [
            "CADDY_ADMIN_URL=127.0.0.1:2019 is not valid: allowed is an address that begins with http:// or https:// and has no question mark, or a socket like unix:///run/caddy/admin.sock",
            "CADDY_ORIGIN is not set: REVERSE_PROXY_BACKEND=caddy needs the address under which Caddy finds this program, like 127.0.0.1:5000",
            // Without a usable proxy nothing is known to be automatic, so no token is asked for yet.
        ]
    );
    let with = |name: &'static str, value: &'static str| {
        let pairs: Vec<_> = CADDY.iter().copied().filter(|(n, _)| *n != name).chain([(name, value)]).collect();
        read(&pairs).unwrap_err()
    };
    assert_eq!(
        with("TRUSTED_PROXY_COUNT", "many"),
        ["TRUSTED_PROXY_COUNT=many is not valid: allowed is a number from 0 to 10"]
    );
    assert_eq!(
        with("TRUSTED_PROXY_CIDRS", "10.0.0.0/8,proxy"),
        [
            "TRUSTED_PROXY_CIDRS=proxy is not valid: allowed are addresses and networks like 10.0.0.0/8 and the word cloudflare, joined by commas"
        ]
    );
    assert_eq!(with("FORCE_HTTPS", "maybe"), ["FORCE_HTTPS=maybe is not valid: allowed are true and false"]);
    let no_proxy = [&CADDY[..], &[("FORCE_HTTPS", "true"), ("TRUSTED_PROXY_COUNT", "0")]].concat();
    let told = read(&no_proxy).unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("FORCE_HTTPS is set, but TRUSTED_PROXY_COUNT is 0: "), "{told:?}");
    assert!(
        told[0].ends_with(
            "set TRUSTED_PROXY_COUNT to the number of proxies in front of this program, or FORCE_HTTPS to false"
        ),
        "{told:?}"
    );
    assert!(read(&[("FORCE_HTTPS", "false"), ("TRUSTED_PROXY_COUNT", "0")]).is_ok(), "without a proxy, by http");
    assert_eq!(with("RESET_SMTP_PORT", "0"), ["RESET_SMTP_PORT=0 is not valid: allowed is a port, 1 to 65535"]);
    assert_eq!(
        with("CF_API_TOKEN", ""),
        ["CF_API_TOKEN is not set: an automatic backend needs a Cloudflare API token with Zone Read and DNS Edit"]
    );
    assert_eq!(
        with("RESET_PORTAL_CNAME_TARGET", ""),
        [
            "RESET_PORTAL_CNAME_TARGET is not set: an automatic backend needs the public host that the portals' CNAMEs point to"
        ]
    );
    assert_eq!(with("MX_USER", "me").len(), 2);
    assert_eq!(
        with("RESET_SMTP_FROM", "a@b.example"),
        ["RESET_SMTP_HOST is not set: other RESET_SMTP_ variables are set, so the mail server must be named"]
    );
    assert!(wrong(&[("CF_API_TOKEN", "secret-token-1")]).iter().all(|words| !words.contains("secret-token-1")));
}

#[test]
fn the_manuals_tunnel_example_is_read_and_needs_no_target() {
    let pairs = [
        ("REVERSE_PROXY_BACKEND", "cloudflare_tunnel"),
        ("CF_TUNNEL_ID", "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d"),
        ("CF_TUNNEL_ORIGIN", "http://127.0.0.1:5000"),
        ("CF_ACCOUNT_ID", "0123456789abcdef0123456789abcdef"),
        ("CF_API_TOKEN", "token-1234"),
    ];
    let environment = read(&pairs).unwrap();
    assert_eq!(environment.warnings, [""; 0]);
    let class = environment.class.unwrap();
    let ProxyVariables::Tunnel { id, origin } = &class.proxy else { panic!("a tunnel") };
    assert_eq!((id.as_str(), origin.as_str()), (pairs[1].1, pairs[2].1));
    assert_eq!((class.cname_target, class.cloudflare.unwrap().account_id.as_deref()), (None, Some(pairs[3].1)));
    // a target that is set all the same is told and not used
    let environment = read(&[&pairs[..], &[("RESET_PORTAL_CNAME_TARGET", "proxy.example.com")]].concat()).unwrap();
    assert_eq!(environment.warnings.len(), 1);
    assert_eq!(environment.class.unwrap().cname_target, None);
    // each missing variable is named
    assert_eq!(
        read(&pairs[..1]).unwrap_err(),
        [
            "CF_TUNNEL_ID is not set: REVERSE_PROXY_BACKEND=cloudflare_tunnel needs the id of a remotely managed tunnel, which the dashboard shows",
            "CF_TUNNEL_ORIGIN is not set: REVERSE_PROXY_BACKEND=cloudflare_tunnel needs the address under which the tunnel's connectors find this program, like http://127.0.0.1:5000",
            "CF_ACCOUNT_ID is not set: REVERSE_PROXY_BACKEND=cloudflare_tunnel needs the account that the tunnel and the zones are in",
        ]
    );
}

#[test]
fn the_manuals_traefik_example_is_read() {
    let pairs = [
        ("REVERSE_PROXY_BACKEND", "traefik"),
        ("TRAEFIK_DYNAMIC_DIR", "/etc/traefik/dynamic"),
        ("TRAEFIK_ORIGIN_URL", "http://127.0.0.1:5000"),
        ("CF_API_TOKEN", "token-1234"),
        ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
    ];
    let with = |more: &[(&'static str, &'static str)]| read(&[&pairs[..], more].concat());
    let class = with(&[]).unwrap().class.unwrap();
    let ProxyVariables::Traefik { cert_resolver, entry_points, .. } = class.proxy else { panic!("traefik") };
    assert_eq!((cert_resolver.as_str(), entry_points.len()), ("cloudflare", 0));
    let class = with(&[("TRAEFIK_CERT_RESOLVER", "none"), ("TRAEFIK_ENTRYPOINTS", "a, b")]).unwrap().class.unwrap();
    let ProxyVariables::Traefik { cert_resolver, entry_points, .. } = class.proxy else { panic!("traefik") };
    assert_eq!((cert_resolver.as_str(), entry_points), ("", vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(
        with(&[("TRAEFIK_CERT_RESOLVER", "{{ env }}")]).unwrap_err(),
        ["TRAEFIK_CERT_RESOLVER={{ env }} is not valid: allowed are letters, digits, hyphens, underscores and dots"]
    );
    assert_eq!(
        with(&[("TRAEFIK_DYNAMIC_DIR", "dynamic")]).unwrap_err(),
        ["TRAEFIK_DYNAMIC_DIR=dynamic is not valid: allowed is a whole path, one that begins with /"]
    );
    for url in ["http://127.0.0.1:8080/api", "https://traefik.example/dashboard/#/"] {
        let told = with(&[("TRAEFIK_API_URL", url)]).unwrap_err();
        let words = format!("TRAEFIK_API_URL={url} is not valid: leave out /api and /dashboard: ");
        assert!(told.len() == 1 && told[0].starts_with(&words), "{told:?}");
    }
    assert!(with(&[("TRAEFIK_API_URL", "http://127.0.0.1:8080/")]).is_ok());
    assert_eq!(read(&pairs[..1]).unwrap_err().len(), 2);
    let class = with(&[("TRAEFIK_CERTIFICATE", "origin_ca")]).unwrap().class.unwrap();
    assert!(matches!(class.proxy, ProxyVariables::Traefik { origin_ca: true, .. }));
    assert_eq!(
        with(&[("TRAEFIK_CERTIFICATE", "acme")]).unwrap_err(),
        ["TRAEFIK_CERTIFICATE=acme is not valid: allowed are auto and origin_ca"]
    );
}

#[test]
fn with_the_origin_ca_caddy_orders_no_certificates() {
    let with = |more: &[(&'static str, &'static str)]| read(&[&CADDY[..], more].concat());
    let caddy = |more: &[(&'static str, &'static str)]| match with(more).unwrap().class.unwrap().proxy {
        ProxyVariables::Caddy(caddy) => (caddy.origin_ca, caddy.dns_challenge),
        other => panic!("{other:?}"),
    };
    assert_eq!(caddy(&[]), (false, Some(false)));
    assert_eq!(caddy(&[("CADDY_CERTIFICATE", "origin_ca")]), (true, None));
    assert_eq!(caddy(&[("CADDY_CERTIFICATE", "origin_ca"), ("CADDY_DNS_CHALLENGE", "auto")]), (true, None));
    assert_eq!(
        with(&[("CADDY_CERTIFICATE", "origin_ca"), ("CADDY_DNS_CHALLENGE", "true")]).unwrap_err(),
        ["CADDY_DNS_CHALLENGE is set, but CADDY_CERTIFICATE is origin_ca, so Caddy orders no certificates"]
    );
}

#[test]
fn ingress_needs_nothing_and_takes_a_record_along_where_there_is_a_token() {
    let class = |pairs: &[(&str, &str)]| read(pairs).unwrap().class.unwrap();
    let plain = class(&[("REVERSE_PROXY_BACKEND", "ingress")]);
    let ProxyVariables::Ingress { service, port, .. } = &plain.proxy else { panic!("ingress") };
    assert_eq!((service.as_str(), *port, plain.cloudflare), ("portalkeeper", 5000, None));
    let token = [("REVERSE_PROXY_BACKEND", "ingress"), ("CF_API_TOKEN", "t")];
    assert!(read(&token).unwrap_err()[0].starts_with("RESET_PORTAL_CNAME_TARGET is not set"));
    let by_hand = class(&[
        ("REVERSE_PROXY_BACKEND", "manual"),
        ("INGRESS_CLASS_NAME", "public"),
        ("INGRESS_ANNOTATIONS", "a.example/x=1, b=2=3"),
        ("CF_API_TOKEN", "t"),
    ]);
    let ProxyVariables::Ingress { class_name, annotations, .. } = &by_hand.proxy else { panic!("ingress") };
    assert_eq!((class_name.as_deref(), annotations["b"].as_str()), (Some("public"), "2=3"));
    assert_eq!(by_hand.cloudflare, None);
    let wrong = [("REVERSE_PROXY_BACKEND", "ingress"), ("INGRESS_ANNOTATIONS", "x")];
    assert_eq!(
        read(&wrong).unwrap_err(),
        [
            "INGRESS_ANNOTATIONS=x is not valid: allowed is name=value, joined by commas; a value with a comma in it needs a PortalClass, in proxy.ingress.annotations"
        ]
    );
}

#[test]
fn the_origin_ca_key_is_taken_with_a_warning() {
    let pairs: Vec<_> = CADDY.iter().copied().chain([("CF_ORIGIN_CA_KEY", "v1.0-x")]).collect();
    let environment = read(&pairs).unwrap();
    assert_eq!(environment.warnings.len(), 1);
    assert!(!environment.warnings[0].contains("v1.0-x"));
    assert!(!environment.warnings[0].contains("CF_API_TOKEN"), "it asks for nothing here");
    let pairs: Vec<_> = pairs.into_iter().chain([("CADDY_CERTIFICATE", "origin_ca")]).collect();
    assert!(read(&pairs).unwrap().warnings[0].contains("are made with CF_API_TOKEN, which needs Zone, SSL and"));
}

#[test]
fn a_dot_env_file_is_read_and_a_broken_line_is_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    assert!(dot_env(&path).unwrap().is_empty());
    std::fs::write(&path, "# comment\nA=1\nexport B='two words'\n").unwrap();
    assert_eq!(dot_env(&path).unwrap()["B"], "two words");
    std::fs::write(&path, "CF_API_TOKEN=secret 'unfinished\n").unwrap();
    let error = dot_env(&path).unwrap_err().to_string();
    assert!(error.starts_with(".env is set, but a line cannot be read") && !error.contains("secret"), "{error}");
}

#[test]
fn an_address_with_a_password_is_refused_without_repeating_it() {
    for name in ["CADDY_ADMIN_URL", "CF_API_URL"] {
        for address in ["http://adm:hunter2@proxy.example:2019", "adm:hunter2@proxy.example:2019"] {
            let pairs: Vec<(&str, &str)> = CADDY.iter().copied().chain([(name, address)]).collect();
            let errors = read(&pairs).unwrap_err();
            let told =
                errors.iter().any(|error| error.contains(name) && error.contains("must not hold a name or a password"));
            assert!(told, "{errors:?}");
            assert!(errors.iter().all(|error| !error.contains("hunter2")), "{errors:?}");
        }
    }
    let mut pairs = CADDY.to_vec();
    pairs.push(("CADDY_ADMIN_URL", "http://127.0.0.1:2019/config/"));
    assert!(read(&pairs).unwrap_err()[0].contains("leave out /config"));
}
