//! A class's definition refuses what the same variable is refused for, in the same words.
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::config::rules;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_refuses_wrong_texts_with_the_rule() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let npm = |more: Value| {
        let mut npm = json!({"apiUrl": "http://127.0.0.1:81", "forwardHost": "10.0.0.5"});
        npm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"proxy": {"caddy": null, "npm": npm}})
    };
    let ingress = |more: Value| json!({"proxy": {"caddy": null, "ingress": more}});
    let traefik = |origin: &str| {
        let traefik = json!({"dynamicDir": "/etc/traefik/dynamic", "originUrl": origin});
        json!({"proxy": {"caddy": null, "traefik": traefik}})
    };
    let traefik_with = |more: Value| {
        let mut traefik = json!({"dynamicDir": "/etc/traefik/dynamic", "originUrl": "http://127.0.0.1:5000"});
        traefik.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"proxy": {"caddy": null, "traefik": traefik}})
    };
    let reference = json!({"name": "caddy-admin", "key": "ca.crt"});
    let authority = json!({"adminUrl": "https://127.0.0.1:2021", "verifyTls": false, "caSecretRef": reference});
    let (label, subdomain) = (rules::LABEL.words, rules::SUBDOMAIN.words);
    for (spec, field, words) in [
        (json!({"proxy": {"caddy": {"origin": "{env.HOME}:5000"}}}), "proxy.caddy.origin", rules::ORIGIN.words),
        (json!({"proxy": {"caddy": {"origin": "::1:5000"}}}), "proxy.caddy.origin", rules::ORIGIN.words),
        (json!({"proxy": {"caddy": {"listen": "80"}}}), "proxy.caddy.listen", rules::LISTEN.words),
        (json!({"proxy": {"caddy": {"listen": ":99999"}}}), "proxy.caddy.listen", rules::LISTEN.words),
        (json!({"proxy": {"caddy": authority}}), "proxy.caddy", "with verifyTls: false nobody looks at caSecretRef"),
        (json!({"proxy": {"caddy": null, "manual": {"origin": "a"}}}), "proxy.manual.origin", rules::ORIGIN.words),
        (traefik("http://127.0.0.1:5000/pages"), "proxy.traefik.originUrl", rules::ORIGIN.words),
        (npm(json!({"forwardHost": "a/b"})), "proxy.npm.forwardHost", rules::FORWARD_HOST.words),
        (
            npm(json!({"certificate": {"existing": {"name": "a\nb"}}})),
            "proxy.npm.certificate.existing.name",
            rules::CERTIFICATE_NAME.words,
        ),
        (ingress(json!({"className": "a b"})), "proxy.ingress.className", subdomain),
        (ingress(json!({"namespace": "a.b"})), "proxy.ingress.namespace", label),
        (ingress(json!({"service": "A"})), "proxy.ingress.service", label),
        (ingress(json!({"tlsSecret": "a/b"})), "proxy.ingress.tlsSecret", subdomain),
        (ingress(json!({"issuer": {"name": "a b"}})), "proxy.ingress.issuer.name", subdomain),
        (ingress(json!({"gateway": {"name": "A"}})), "proxy.ingress.gateway.name", subdomain),
        (json!({"cloudflare": {"accountId": "../x"}}), "cloudflare.accountId", rules::ACCOUNT.words),
        (json!({"smtp": {"host": "a b"}}), "smtp.host", rules::SERVER.words),
        (json!({"mailbox": {"mxroute": {"server": "a b"}}}), "mailbox.mxroute.server", rules::SERVER.words),
        (json!({"mailbox": {"mxroute": {"username": "a b"}}}), "mailbox.mxroute.username", rules::USERNAME.words),
        (
            json!({"proxy": {"caddy": {"adminUrl": "unix://run/a.sock"}}}),
            "proxy.caddy.adminUrl",
            rules::CADDY_ADMIN.words,
        ),
        (json!({"proxy": {"caddy": {"adminUrl": "http://a:1/config/"}}}), "proxy.caddy.adminUrl", "leave out /config"),
        (json!({"smtp": {"host": "mail.example.com", "encryption": "Plain"}}), "smtp", rules::ON_THIS_MACHINE.words),
        (json!({"smtp": {"port": 0}}), "smtp.port", "greater than or equal to 1"),
        (json!({"cnameTarget": "https://proxy.example.com"}), "cnameTarget", rules::HOST_NAME.words),
        (npm(json!({"apiUrl": "10.0.0.5:81"})), "proxy.npm.apiUrl", rules::WEB_ADDRESS.words),
        (traefik_with(json!({"dynamicDir": "dynamic"})), "proxy.traefik.dynamicDir", rules::FOLDER.words),
        (json!({"cnameTarget": "192.0.2.1"}), "cnameTarget", "a CNAME record cannot lead to an address"),
        (json!({"publicPort": 0}), "publicPort", "greater than or equal to 1"),
        (json!({"probe": {"address": "foo"}}), "probe.address", rules::PROBE_ADDRESS.words),
        (traefik_with(json!({"entryPoints": ["web", "{{x}}"]})), "proxy.traefik.entryPoints", rules::WORD.words),
        (traefik_with(json!({"certResolver": "`a`"})), "proxy.traefik.certResolver", rules::WORD.words),
        (
            traefik_with(json!({"apiUrl": "http://a:8080/api/"})),
            "proxy.traefik.apiUrl",
            "leave out /api and /dashboard",
        ),
    ] {
        let outcome = classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await;
        let refused = outcome.expect_err(field).to_string();
        assert!(
            refused.contains(&format!("spec.{field}: Invalid value")) && refused.contains(words),
            "{field}: {refused}"
        );
    }
    // what is meant is taken
    let right = json!({"spec": {
        "cloudflare": {"accountId": "0123456789abcdef0123456789abcdef"}, "smtp": {"host": "::1"},
        "proxy": {"caddy": {"origin": "[::1]:5000", "listen": "tcp/:8443"}},
    }});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&right)).await.expect("taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_definition_cannot_check_is_told_by_the_portals() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    // given a key that is none of an annotation
    let ingress = json!({"service": "pages", "annotations": {"bad key!": "x"}});
    let patch = json!({"spec": {"proxy": {"caddy": null, "ingress": ingress}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let words = world.until_condition("acme", "Accepted", "False", "ClassUnusable").await;
    let told =
        "proxy.ingress.annotations (INGRESS_ANNOTATIONS) has the key \"bad key!\", which is none of an annotation";
    assert!(words.contains(told), "{words}");
    // given a token that was pasted with a line end in the middle
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pasted", "namespace": "portalkeeper"},
        "stringData": {"token": "hunter\n2"},
    });
    world.put(&secret).await;
    let patch = json!({"spec": {"cloudflare": {"apiTokenSecretRef": {"name": "pasted", "key": "token"}}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    let words = world.until_condition("acme", "Accepted", "False", "SecretInvalid").await;
    let told = "key \"token\" of Secret \"pasted\" in namespace \"portalkeeper\" cannot be used: it holds a blank";
    assert!(words.starts_with(told) && !words.contains("hunter"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portals_names_and_texts_are_refused_with_the_rule() {
    let world = World::start().await;
    for (spec, field, words) in [
        (json!({"domain": "ACME.localhost"}), "domain", rules::HOST_NAME.words),
        (json!({"domain": "*.acme.localhost"}), "domain", rules::HOST_NAME.words),
        (json!({"domain": "acme.localhost", "host": "m\u{fc}nchen.localhost"}), "host", rules::HOST_NAME.words),
        (json!({"domain": "acme.localhost", "subdomain": "a.b"}), "subdomain", rules::HOST_LABEL.words),
        (json!({"domain": "acme.localhost", "branding": {"title": "a\nb"}}), "branding.title", rules::LINE.words),
        (
            json!({"domain": "acme.localhost", "branding": {"supportText": "a\u{202e}b"}}),
            "branding.supportText",
            rules::LINE.words,
        ),
        (
            json!({"domain": "acme.localhost", "branding": {"supportLink": "http://a"}}),
            "branding.supportLink",
            rules::HTTPS_LINK.words,
        ),
    ] {
        let portal = serde_json::from_value(crate::world::portal("acme", spec)).unwrap();
        let refused = world.portals().create(&Default::default(), &portal).await.expect_err(field).to_string();
        assert!(
            refused.contains(&format!("spec.{field}: Invalid value")) && refused.contains(words),
            "{field}: {refused}"
        );
    }
    // what is meant is taken, in any language
    let right = json!({"domain": "acme.localhost", "branding": {"title": "M\u{fc}nchen \u{2013} \u{5e9}", "supportText": "\u{41f}\u{43e}"}});
    world.create("acme", right).await;
    world.until_ready("acme").await;
}
