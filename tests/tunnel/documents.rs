//! The merge of our rules into other people's documents, as tables and by random documents.
use portalkeeper::backends::Scope;
use portalkeeper::backends::cloudflare_api::double::ingress;
use portalkeeper::backends::cloudflare_tunnel::{Book, Config, Entry, Rule, merge, observe, shadow};
use portalkeeper::plan::{self, Intent};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{ORIGIN, foreign_document, host, intent, is_entry, without_ours};

/// A process's knowledge of a document, and what it does to it.
#[derive(Clone)]
struct Scene {
    config: Value,
    ledger: Vec<Entry>,
}

enum Wish {
    Present,
    Absent,
    Released,
}

impl Scene {
    fn of(rules: Value) -> Self {
        let mut rules = rules.as_array().unwrap().clone();
        rules.push(json!({"service": "http_status:404"}));
        Self { config: json!({"ingress": rules}), ledger: Vec::new() }
    }

    fn rule(intent: &Intent) -> Rule {
        Rule { host: intent.host.to_string(), service: ORIGIN.to_owned(), reached: true }
    }

    /// One batch: observed, planned and merged as the worker does it. Gives what was blocked or refused.
    fn batch(&mut self, wishes: &[(&Intent, Wish)]) -> Vec<String> {
        let config = Config::parse(&self.config).unwrap();
        let book: Book = self.ledger.iter().cloned().collect();
        let scope = Scope {
            urgency: Default::default(),
            wanted: Vec::new(),
            hosts: wishes.iter().map(|(intent, _)| intent.host.clone()).collect(),
            marks: wishes.iter().map(|(intent, _)| intent.mark.clone()).collect(),
        };
        let wants: Vec<_> = wishes
            .iter()
            .map(|(intent, wish)| {
                let mark = intent.mark.clone();
                let want = match wish {
                    Wish::Present => plan::Want::Present {
                        mark,
                        items: vec![Self::rule(intent)],
                        adopt: intent.adopt,
                        keep: intent.keep.clone(),
                    },
                    Wish::Absent => plan::Want::Absent { mark },
                    Wish::Released => plan::Want::Released { mark },
                };
                (intent.portal.clone(), want)
            })
            .collect();
        let plan = plan::plan(&wants, &observe(&config, &book, &scope));
        let merged = merge(&config, &book, &plan);
        self.config = merged.config.to_value();
        let known = |all: &[Entry], entry: &Entry| {
            all.iter().any(|other| (&other.host, &other.service) == (&entry.host, &entry.service))
        };
        self.ledger.retain(|entry| !known(&merged.stale, entry) && !known(&merged.noted, entry));
        self.ledger.extend(merged.noted);
        let refused = merged.outcomes.into_iter().filter_map(Result::err).map(|error| error.message);
        plan.blocked.into_iter().map(|blocked| format!("{}: {}", blocked.key, blocked.by)).chain(refused).collect()
    }

    fn wants(&mut self, names: &[&str]) -> Vec<String> {
        let intents: Vec<Intent> = names.iter().map(|name| intent(name)).collect();
        self.batch(&intents.iter().map(|intent| (intent, Wish::Present)).collect::<Vec<_>>())
    }

    /// Host with path and service of each rule, in order.
    fn lines(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules = self.config["ingress"].as_array().unwrap();
        let line = |rule: &Value| {
            let service = text(&rule["service"]);
            let service = if service == ORIGIN { "ours" } else { service.trim_start_matches("http://") };
            format!("{}{} {service}", text(&rule["hostname"]), text(&rule["path"]))
        };
        rules.iter().map(line).collect()
    }

    fn shadow(&self, host: &str) -> Option<(&'static str, String)> {
        let book: Book = self.ledger.iter().cloned().collect();
        shadow(&Config::parse(&self.config).unwrap(), &book, host).map(|shadow| (shadow.reason, shadow.message))
    }
}

/// Every rule of a valid document, and beyond what the API asks for: no rule of ours that never matches.
fn check(config: &Value, ours: &[Entry]) {
    assert_eq!(ingress::refusal(config), None, "{config}");
    let rules = config["ingress"].as_array().unwrap();
    for entry in ours {
        let host = &entry.host;
        assert_eq!(*host, host.to_ascii_lowercase());
        assert!(!host.ends_with('.') && !host.contains([':', '*', ' ']), "{host}");
        let count = rules.iter().filter(|rule| rule["hostname"] == **host && is_entry(rule, entry)).count();
        assert_eq!(count, 1, "{host} in {config}");
    }
}

#[test]
fn a_rule_stands_before_what_would_take_its_requests_and_after_what_it_would_cut_off() {
    let rule = |host: &str, service: &str| json!({"hostname": host, "service": format!("http://{service}")});
    let path = |host: &str, path: &str, service: &str| json!({"hostname": host, "path": path, "service": format!("http://{service}")});
    let h = "reset.acme.example";
    for (rules, expected) in [
        // nothing in the way: before the catch-all
        (json!([rule("a.example", "s1")]), vec!["a.example s1", "reset.acme.example ours", " http_status:404"]),
        // a wildcard of any depth that covers the host
        (
            json!([rule("*.acme.example", "s1"), rule("*.example", "s2")]),
            vec!["reset.acme.example ours", "*.acme.example s1", "*.example s2", " http_status:404"],
        ),
        (
            json!([rule("a.example", "s0"), rule("*.example", "s1")]),
            vec!["a.example s0", "reset.acme.example ours", "*.example s1", " http_status:404"],
        ),
        // one that does not
        (
            json!([rule("*.reset.acme.example", "s1"), rule("*.cme.example", "s2"), rule("*.globex.example", "s3")]),
            vec![
                "*.reset.acme.example s1",
                "*.cme.example s2",
                "*.globex.example s3",
                "reset.acme.example ours",
                " http_status:404",
            ],
        ),
        // single paths of the very host go on being served by whom they were
        (
            json!([path(h, "^/api", "s1"), rule("*.acme.example", "s2")]),
            vec!["reset.acme.example^/api s1", "reset.acme.example ours", "*.acme.example s2", " http_status:404"],
        ),
        (
            json!([path("*.acme.example", "^/x", "s1"), path(h, "^/api", "s2"), rule("*.acme.example", "s3")]),
            vec![
                "*.acme.example^/x s1",
                "reset.acme.example^/api s2",
                "reset.acme.example ours",
                "*.acme.example s3",
                " http_status:404",
            ],
        ),
        // single paths that no request ever reached are not cut off by us
        (
            json!([rule("*.acme.example", "s1"), path(h, "^/api", "s2")]),
            vec!["reset.acme.example ours", "*.acme.example s1", "reset.acme.example^/api s2", " http_status:404"],
        ),
        // single paths of many hosts
        (
            json!([path("*.acme.example", "^/x", "s1")]),
            vec!["reset.acme.example ours", "*.acme.example^/x s1", " http_status:404"],
        ),
        // spellings that the connector takes for other hosts
        (
            json!([rule("*.Acme.Example", "s1"), rule("reset.acme.example.", "s2")]),
            vec!["*.Acme.Example s1", "reset.acme.example. s2", "reset.acme.example ours", " http_status:404"],
        ),
        // paths of the host in another spelling, which the connector reads as the same
        (
            json!([path("Reset.Acme.Example", "^/api", "s1"), rule("*.acme.example", "s2")]),
            vec!["Reset.Acme.Example^/api s1", "reset.acme.example ours", "*.acme.example s2", " http_status:404"],
        ),
    ] {
        let mut scene = Scene::of(rules);
        let before = scene.config.to_string();
        assert_eq!(scene.wants(&[h]), [""; 0]);
        assert_eq!(scene.lines(), expected);
        check(&scene.config, &scene.ledger);
        assert_eq!(without_ours(&scene.config, &scene.ledger), before);
        // when it is wanted again, then nothing changes; when it is not, then it goes without a trace
        let made = scene.clone();
        assert_eq!(scene.wants(&[h]), [""; 0]);
        assert_eq!(scene.config, made.config);
        scene.batch(&[(&intent(h), Wish::Absent)]);
        assert_eq!((scene.config.to_string(), scene.ledger.len()), (before, 0));
    }
}

#[test]
fn a_rule_of_somebody_else_at_the_host_is_told_and_left_alone_until_it_may_be_taken_over() {
    let theirs = json!({"hostname": "reset.acme.example", "service": "http://10.0.0.1:80", "originRequest": {"x": 1}});
    let mut scene = Scene::of(json!([theirs]));
    let before = scene.clone();
    assert_eq!(scene.wants(&["reset.acme.example"]), ["reset.acme.example: tunnel rule to http://10.0.0.1:80"]);
    assert_eq!((scene.config.clone(), scene.ledger.len()), (before.config.clone(), 0));
    // neither is it removed
    scene.batch(&[(&intent("reset.acme.example"), Wish::Absent)]);
    assert_eq!(scene.config, before.config);
    // nor one in another spelling, which the connector takes for the same host
    for (name, host) in [
        ("Reset.Acme.Example", "reset.acme.example"),
        ("reset.bücher.example", "reset.xn--bcher-kva.example"),
        ("Reset.BÜCHER.example", "reset.xn--bcher-kva.example"),
    ] {
        let mut other = Scene::of(json!([{"hostname": name, "service": "http://10.0.0.1:80"}]));
        assert_eq!(other.wants(&[host]), [format!("{host}: tunnel rule to http://10.0.0.1:80")]);
    }
    // nor one that happens to be just like ours: nobody noted that we made it
    let mut alike = Scene::of(json!([{"hostname": "reset.acme.example", "service": ORIGIN}]));
    assert_eq!(alike.wants(&["reset.acme.example"]).len(), 1);
    // a password in it is nothing for a condition
    let secret = json!([{"hostname": "reset.acme.example", "service": "http://me:hunter2@10.0.0.1:80"}]);
    let words = Scene::of(secret).wants(&["reset.acme.example"]);
    assert_eq!(words, ["reset.acme.example: tunnel rule to http://…@10.0.0.1:80"]);
    // when it may be taken over, then it becomes ours, and goes with the portal
    let adopting = Intent { adopt: true, ..intent("reset.acme.example") };
    assert_eq!(scene.batch(&[(&adopting, Wish::Present)]), [""; 0]);
    assert_eq!(scene.lines(), ["reset.acme.example ours", " http_status:404"]);
    assert_eq!(scene.config["ingress"][0].as_object().unwrap().len(), 2, "nothing of the former rule is left");
    scene.batch(&[(&adopting, Wish::Absent)]);
    assert_eq!(scene.lines(), [" http_status:404"]);
}

#[test]
fn a_released_rule_stays_and_is_foreign_from_then_on() {
    let mut scene = Scene::of(json!([]));
    scene.wants(&["reset.acme.example"]);
    let made = scene.config.clone();
    scene.batch(&[(&intent("reset.acme.example"), Wish::Released)]);
    assert_eq!((&scene.config, scene.ledger.len()), (&made, 0));
    assert_eq!(scene.wants(&["reset.acme.example"]), [format!("reset.acme.example: tunnel rule to {ORIGIN}")]);
    scene.batch(&[(&intent("reset.acme.example"), Wish::Absent)]);
    assert_eq!(scene.config, made);
}

#[test]
fn what_somebody_did_to_our_rule_decides_whether_it_is_ours() {
    let h = "reset.acme.example";
    let made = || {
        let mut scene = Scene::of(json!([{"hostname": "*.acme.example", "service": "s1"}]));
        scene.wants(&[h]);
        scene
    };
    // settings beside it are kept, and go with it
    let mut scene = made();
    scene.config["ingress"][0]["originRequest"] = json!({"noTLSVerify": true});
    let edited = scene.config.clone();
    assert_eq!(scene.wants(&[h]), [""; 0]);
    assert_eq!(scene.config, edited);
    scene.batch(&[(&intent(h), Wish::Absent)]);
    assert_eq!(scene.lines(), ["*.acme.example s1", " http_status:404"]);
    // another service makes it theirs
    let mut scene = made();
    scene.config["ingress"][0]["service"] = json!("http://10.0.0.9:80");
    let edited = scene.config.clone();
    assert_eq!(scene.wants(&[h]), ["reset.acme.example: tunnel rule to http://10.0.0.9:80"]);
    scene.batch(&[(&intent(h), Wish::Absent)]);
    assert_eq!(scene.config, edited);
    // moved behind what takes its requests, it is moved back and keeps its settings
    let mut scene = made();
    let ours = scene.config["ingress"].as_array_mut().unwrap().remove(0);
    scene.config["ingress"].as_array_mut().unwrap().insert(1, ours);
    assert_eq!(scene.lines()[0], "*.acme.example s1");
    assert_eq!(scene.wants(&[h]), [""; 0]);
    assert_eq!(scene.lines(), ["reset.acme.example ours", "*.acme.example s1", " http_status:404"]);
    // made twice by somebody, one of them stays theirs
    let mut scene = made();
    let again = scene.config["ingress"][0].clone();
    scene.config["ingress"].as_array_mut().unwrap().insert(1, again);
    assert_eq!(scene.wants(&[h]), [""; 0]);
    scene.batch(&[(&intent(h), Wish::Absent)]);
    assert_eq!(scene.lines(), ["reset.acme.example ours", "*.acme.example s1", " http_status:404"]);
    // gone, it is made again
    let mut scene = made();
    scene.config["ingress"].as_array_mut().unwrap().remove(0);
    assert_eq!(scene.wants(&[h]), [""; 0]);
    assert_eq!(scene.lines()[0], "reset.acme.example ours");
}

#[test]
fn rules_of_others_that_take_the_hosts_requests_are_named() {
    let h = "reset.acme.example";
    let mut scene = Scene::of(json!([{"hostname": h, "path": "^/api", "service": "s1"}]));
    scene.wants(&[h]);
    let (reason, words) = scene.shadow(h).unwrap();
    assert_eq!(reason, "PathsElsewhere");
    assert!(words.ends_with("`^/api` to s1"), "{words}");
    scene.config["ingress"][0]["path"] = json!("/");
    assert_eq!(scene.shadow(h).unwrap().0, "ShadowedByPath");
    // a second rule for the whole host that somebody put before ours is not ours to pass
    let theirs = json!({"hostname": h, "service": "s2"});
    scene.config["ingress"].as_array_mut().unwrap()[0] = theirs;
    let before = scene.config.clone();
    assert_eq!(scene.wants(&[h]), [""; 0]);
    assert_eq!(scene.config, before);
    let (reason, words) = scene.shadow(h).unwrap();
    assert_eq!(reason, "ForeignRule");
    assert!(words.contains("(to s2) stands before ours"), "{words}");
    assert_eq!(Scene::of(json!([])).shadow(h), None);
}

#[test]
fn a_new_tunnel_gets_a_catch_all_and_a_document_of_another_form_is_not_touched() {
    for empty in [Value::Null, json!({}), json!({"ingress": []}), json!({"ingress": null, "x": 1})] {
        let mut scene = Scene { config: empty, ledger: Vec::new() };
        scene.wants(&["reset.acme.example"]);
        assert_eq!(scene.lines(), ["reset.acme.example ours", " http_status:404"]);
        check(&scene.config, &scene.ledger);
        scene.batch(&[(&intent("reset.acme.example"), Wish::Absent)]);
        assert_eq!(scene.lines(), [" http_status:404"], "a document without any rule would be refused");
    }
    for (odd, words) in [
        (json!([]), "is no object"),
        (json!({"ingress": {}}), "has an `ingress` that is no list"),
        (json!({"ingress": ["x"]}), "has a rule that is no object, at ingress[0]"),
        (json!({"a": [{"b": 1e300}]}), "has a number at config.a[0].b that is too large to be carried over exactly"),
    ] {
        let error = Config::parse(&odd).unwrap_err();
        assert_eq!(error.message, format!("the tunnel's configuration {words}"));
    }
    let exact = json!({"a": [u64::MAX, i64::MIN, 0.1, -1.5e10]});
    assert!(Config::parse(&exact).is_ok());
}

#[test]
fn a_whole_document_of_others_survives_a_life_of_many_portals() {
    let mut scene = Scene { config: foreign_document(), ledger: Vec::new() };
    let names: Vec<String> = (0..50).map(|n| format!("reset{n}.acme.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(scene.wants(&names), [""; 0]);
    check(&scene.config, &scene.ledger);
    assert_eq!(without_ours(&scene.config, &scene.ledger), foreign_document().to_string());
    let intents: Vec<Intent> = names.iter().map(|name| intent(name)).collect();
    scene.batch(&intents.iter().map(|intent| (intent, Wish::Absent)).collect::<Vec<_>>());
    assert_eq!(scene.config.to_string(), foreign_document().to_string());
}

const HOSTS: [&str; 5] =
    ["reset.acme.example", "b.acme.example", "deep.b.acme.example", "reset.globex.example", "c.test"];

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zé\"\\\\]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_rule() -> impl Strategy<Value = Value> {
    let more =
        ["*.acme.example", "*.example", "*.b.acme.example", "Reset.Acme.Example", "b.acme.example.", "x.test", ""];
    let hosts: Vec<&str> = HOSTS.iter().chain(&more).copied().collect();
    let path = prop::option::weighted(0.4, prop::sample::select(vec!["^/api", "/x", r"\.png$"]));
    let services = prop::sample::select(vec!["http://10.0.0.1:80", "https://10.0.0.2:443", "http_status:403", ORIGIN]);
    let extra = prop::collection::vec(("k[a-z]{0,3}", any_value()), 0..2);
    (prop::sample::select(hosts), path, services, extra).prop_map(|(host, path, service, extra)| {
        let mut rule: Map<String, Value> = extra.into_iter().collect();
        rule.insert("service".into(), json!(service));
        // A rule for all paths of all hosts may stand only at the end.
        match (host, path) {
            ("", path) => rule.insert("path".into(), json!(path.unwrap_or("^/api"))),
            (host, None) => rule.insert("hostname".into(), json!(host)),
            (host, Some(path)) => {
                rule.insert("path".into(), json!(path));
                rule.insert("hostname".into(), json!(host))
            }
        };
        Value::Object(rule)
    })
}

fn any_document() -> impl Strategy<Value = Value> {
    let rest = prop::collection::vec(("t[a-z-]{0,5}", any_value()), 0..3);
    (prop::collection::vec(any_rule(), 0..8), rest).prop_map(|(mut rules, rest)| {
        rules.push(json!({"service": "http_status:404"}));
        let mut config: Map<String, Value> = rest.into_iter().collect();
        config.insert("ingress".into(), Value::Array(rules));
        Value::Object(config)
    })
}

/// The first rule that takes every path of the host.
fn whole_of<'a>(config: &'a Value, host: &str) -> &'a Value {
    let bare: Vec<Value> =
        config["ingress"].as_array().unwrap().iter().filter(|rule| rule["path"].is_null()).cloned().collect();
    let service = ingress::route(&json!({"ingress": bare}), host, "/").map(str::to_owned);
    let rules = config["ingress"].as_array().unwrap();
    let fits = |rule: &&Value| {
        rule["path"].is_null() && ingress::route(&json!({"ingress": [rule]}), host, "/").map(str::to_owned) == service
    };
    rules.iter().find(fits).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_others_wrote_goes_back_as_it_came(
        document in any_document(), wanted in prop::sample::subsequence(HOSTS.to_vec(), 0..=HOSTS.len()),
    ) {
        let mut scene = Scene { config: document.clone(), ledger: Vec::new() };
        scene.wants(&wanted);
        // valid, with theirs byte for byte and in their order
        check(&scene.config, &scene.ledger);
        prop_assert_eq!(without_ours(&scene.config, &scene.ledger), document.to_string());
        // the connector reads another case as the same host
        let names = |rule: &Value, host: &str| rule["hostname"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(host));
        let taken = |host: &str| {
            document["ingress"].as_array().unwrap().iter().any(|rule| names(rule, host) && rule["path"].is_null())
        };
        for host in HOSTS {
            let ours = scene.ledger.iter().any(|entry| entry.host == host);
            prop_assert_eq!(ours, wanted.contains(&host) && !taken(host), "{}", host);
            if ours {
                let whole = whole_of(&scene.config, host);
                prop_assert_eq!((&whole["hostname"], &whole["service"]), (&json!(host), &json!(ORIGIN)));
            }
            for path in ["/api", "/x", "/a.png", "/"] {
                let (before, after) = (ingress::route(&document, host, path), ingress::route(&scene.config, host, path));
                // what somebody has for single paths of the very host is not cut off; other hosts are as they were
                let own_path = document["ingress"].as_array().unwrap().iter()
                    .find(|rule| ingress::route(&json!({"ingress": [rule]}), host, path).is_some())
                    .is_some_and(|rule| names(rule, host) && !rule["path"].is_null());
                if !ours || own_path {
                    prop_assert_eq!(before, after, "{} {}", host, path);
                }
            }
        }
        // wanted again, nothing changes; no longer wanted, nothing is left
        let made = scene.config.clone();
        scene.wants(&wanted);
        prop_assert_eq!(&scene.config, &made);
        let intents: Vec<Intent> = HOSTS.iter().map(|name| intent(name)).collect();
        scene.batch(&intents.iter().map(|intent| (intent, Wish::Absent)).collect::<Vec<_>>());
        prop_assert_eq!(scene.config.to_string(), document.to_string());
        prop_assert_eq!(scene.ledger.len(), 0);
    }
}

#[test]
fn hosts_are_what_a_connector_compares() {
    for name in ["Reset.Acme.Example", "reset.acme.example.", "reset.acme.example:443", "*.acme.example"] {
        assert!(portalkeeper::api::HostName::parse(name).is_err(), "{name}");
    }
    assert_eq!(host("reset.acme.example").as_str(), "reset.acme.example");
}
