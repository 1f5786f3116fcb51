//! From the page to a changed password, over HTTP, and everything that must not work.
use portalkeeper::api::MailAddress;
use portalkeeper::http::double::{DoubleResponse, Fault};
use portalkeeper::mail::sink::StoredMail;
use portalkeeper::store::Recovery;
use serde_json::json;

use crate::world::{Answer, World, raw};

const HOST: &str = "reset.acme.localhost";
const ANN: &str = "ann@acme.localhost";
const FIRST: &str = "Before-the-first-reset-1";

async fn world() -> World {
    let world = World::start().await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_ready("acme").await;
    let address = |text: &str| MailAddress::parse(text).unwrap();
    let recovery = [("ann@acme.localhost", "ann@home.example"), ("bob@acme.localhost", "bob@home.example")];
    let entries = recovery.map(|(mailbox, to)| Recovery { mailbox: address(mailbox), address: address(to) });
    world.store().recovery_set(&entries, jiff::Timestamp::now()).await.unwrap();
    world
}

/// The hidden token of the form on a page.
fn token(page: &str) -> String {
    page.split("name=\"form\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

async fn form_token(world: &World, path: &str) -> String {
    token(&world.get(HOST, path).await.1)
}

fn encoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

async fn post(world: &World, path: &str, fields: &[(&str, &str)]) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    raw(world.pages, "POST", HOST, path, &headers, &encoded(fields)).await
}

async fn ask(world: &World, mailbox: &str) -> Answer {
    let form = form_token(world, "/").await;
    post(world, "/request", &[("form", &form), ("mailbox", mailbox)]).await
}

async fn set(world: &World, code: &str, password: &str) -> Answer {
    let form = form_token(world, "/r").await;
    post(world, "/reset", &[("form", &form), ("code", code), ("password", password)]).await
}

/// Waits until this many mails have come.
async fn mails(world: &World, count: usize) -> Vec<StoredMail> {
    for _ in 0..1000 {
        let mails = world.simulators.sink.messages();
        if mails.len() >= count {
            assert_eq!(mails.len(), count, "{mails:?}");
            return mails;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no mail came: {:?}", world.simulators.sink.messages());
}

/// Waits until the audit trail has an event of an action at a mailbox with this result. Requests are dealt with behind
/// the answer, so their events may come in any order.
async fn audited(world: &World, action: &str, mailbox: &str, result: &str) {
    for _ in 0..1000 {
        let newest = world.store().audit_newest(20).await.unwrap();
        if newest
            .iter()
            .any(|e| (e.action.as_str(), e.mailbox.as_str(), e.result.as_str()) == (action, mailbox, result))
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{action} did not end with {result}: {:?}", world.store().audit_newest(20).await.unwrap());
}

fn code(mail: &StoredMail) -> String {
    mail.text.split("/r#").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

async fn link(world: &World) -> String {
    assert_eq!(ask(world, ANN).await.status, 303);
    code(&mails(world, 1).await[0])
}

fn password(world: &World) -> String {
    world.simulators.mxroute.password(ANN).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_set_by_a_mailed_link_that_works_once() {
    let world = world().await;
    // when a link is asked for, then it goes to the recovery address only
    let asked = ask(&world, "Ann@Acme.localhost").await;
    assert_eq!((asked.status, asked.header("location")), (303, Some("/sent")));
    let mail = mails(&world, 1).await.remove(0);
    assert_eq!(mail.to, ["ann@home.example"]);
    assert_eq!(mail.from, "reset@acme.localhost");
    assert!(mail.text.contains(&format!("http://{}/r#", world.authority(HOST))), "{}", mail.text);
    let code = code(&mail);
    // looking at the page uses nothing up
    assert_eq!(world.get(HOST, "/r").await.0, 200);
    // when a new password is set, then the provider has it and both addresses are told
    let done = set(&world, &code, "Correct-horse-7").await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert!(done.body.contains("Your password is changed"));
    assert_eq!(password(&world), "Correct-horse-7");
    let notices = mails(&world, 3).await;
    let told: Vec<&str> = notices[1..].iter().flat_map(|mail| mail.to.iter().map(String::as_str)).collect();
    assert_eq!(told, ["ann@home.example", ANN]);
    assert!(notices[1..].iter().all(|mail| !mail.text.contains("/r#") && mail.subject.ends_with("was changed")));
    // then the link is dead
    let again = set(&world, &code, "Another-horse-8").await;
    assert_eq!(again.status, 410);
    assert!(again.body.contains("This link does not work any more"));
    assert_eq!(password(&world), "Correct-horse-7");
    // and one write was made at the provider
    assert_eq!(world.simulators.mxroute_log.writes().len(), 1);
    // and neither code nor password are in any file of the daemon
    for entry in std::fs::read_dir(world.folder.path().join("data")).unwrap().flatten() {
        let bytes = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
        assert!(!bytes.contains(&code) && !bytes.contains("Correct-horse-7"), "{:?}", entry.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_may_be_typed_with_capitals_and_blanks() {
    let world = world().await;
    let code = link(&world).await;
    let typed: String = code.to_uppercase().chars().flat_map(|c| [c, ' ']).collect();
    assert_eq!(set(&world, &typed, "Correct-horse-7").await.status, 200);
    assert_eq!(password(&world), "Correct-horse-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_whether_a_mailbox_exists() {
    let world = world().await;
    world.simulators.mxroute.add_mailbox("sue@acme.localhost", FIRST);
    world.simulators.mxroute.suspend("sue@acme.localhost");
    let known = ask(&world, ANN).await;
    mails(&world, 1).await;
    for (mailbox, result) in
        [("nobody@acme.localhost", "NoRecoveryAddress"), ("sue@acme.localhost", "NoRecoveryAddress"), (ANN, "CoolDown")]
    {
        let answer = ask(&world, mailbox).await;
        let strip = |head: &str| head.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
        assert_eq!((answer.status, strip(&answer.head), &answer.body), (known.status, strip(&known.head), &known.body));
        audited(&world, "request", mailbox, result).await;
    }
    // a mailbox with a recovery address that the provider does not have gets nothing either
    world.simulators.mxroute.remove_mailbox("bob@acme.localhost");
    ask(&world, "bob@acme.localhost").await;
    audited(&world, "request", "bob@acme.localhost", "MailboxMissing").await;
    assert_eq!(world.simulators.sink.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_costs_no_link_and_says_what_is_needed() {
    let world = world().await;
    let code = link(&world).await;
    for (bad, words) in [
        ("Short-1", "The password needs at least 12 characters."),
        (
            "alllowercase-1",
            "This password is too simple for the mail server. It needs at least 8 characters with an upper-case letter, a lower-case letter and a digit.",
        ),
        ("Xann-was-here-1", "The password must not contain the mailbox&#39;s name or domain."),
        (&"Aa1".repeat(25), "The password is too long: at most 72 bytes."),
        ("", "Enter a new password."),
    ] {
        let answer = set(&world, &code, bad).await;
        assert_eq!(answer.status, 422, "{bad}");
        assert!(
            answer.body.contains(words) || answer.body.contains(&words.replace("&#39;", "'")),
            "{bad}: {}",
            answer.body
        );
        assert!(bad.is_empty() || !answer.body.contains(bad), "the password is not sent back");
        assert!(answer.body.contains("<title>Error: "));
    }
    assert!(world.simulators.mxroute_log.writes().is_empty());
    assert_eq!(set(&world, &code, "Correct-horse-7").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_holds_the_link() {
    let world = world().await;
    let code = link(&world).await;
    let failure = json!({"success": false, "error": {"code": "SERVER_ERROR", "message": "m"}});
    // an answer of 500 does not say whether the password was set, so the same one is sent again, three times in all
    world.simulators.faults.push("PATCH", "email-accounts", 3, Fault::Answer(DoubleResponse::json(500, &failure)));
    let answer = set(&world, &code, "Correct-horse-7").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("Please try again later") && !answer.body.contains("SERVER_ERROR"));
    assert_eq!(world.simulators.mxroute_log.writes().len(), 3);
    assert_eq!(password(&world), FIRST);
    // the link is held for its lease, so that nobody sets another password meanwhile
    assert_eq!(set(&world, &code, "Another-horse-8").await.status, 410);
    assert_eq!(password(&world), FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definite_refusal_frees_the_link_at_once() {
    let world = world().await;
    let code = link(&world).await;
    let failure =
        DoubleResponse::json(429, &json!({"success": false, "error": {"code": "RATE_LIMITED", "message": "m"}}));
    world.simulators.faults.push("PATCH", "email-accounts", 1, Fault::Answer(failure));
    assert_eq!(set(&world, &code, "Correct-horse-7").await.status, 503);
    let weak = json!({"success": false, "error": {"code": "VALIDATION_ERROR", "field": "password", "message": "in a list of bad ones"}});
    world.simulators.faults.push("PATCH", "email-accounts", 1, Fault::Answer(DoubleResponse::json(400, &weak)));
    let refused = set(&world, &code, "Correct-horse-7").await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("The mail server did not accept this password."), "{}", refused.body);
    assert_eq!(set(&world, &code, "Correct-horse-7").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_about_again_with_the_same_password() {
    let world = world().await;
    let code = link(&world).await;
    world.simulators.faults.push("PATCH", "email-accounts", 1, Fault::CutAfter);
    assert_eq!(set(&world, &code, "Correct-horse-7").await.status, 200);
    assert_eq!(password(&world), "Correct-horse-7");
    assert_eq!(set(&world, &code, "Another-horse-8").await.status, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_one_portal_is_nothing_to_another() {
    let world = world().await;
    world.create("globex", json!({"domain": "globex.localhost"})).await;
    world.until_ready("globex").await;
    let code = link(&world).await;
    let other = "reset.globex.localhost";
    let form = token(&world.get(other, "/r").await.1);
    let fields = [("form", form.as_str()), ("code", &code), ("password", "Correct-horse-7")];
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let answer = raw(world.pages, "POST", other, "/reset", &headers, &encoded(&fields)).await;
    assert_eq!(answer.status, 410);
    assert_eq!(password(&world), FIRST);
    assert_eq!(set(&world, &code, "Correct-horse-7").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_die_with_a_changed_recovery_address_and_with_their_portal() {
    let world = world().await;
    let code = link(&world).await;
    let entry =
        Recovery { mailbox: MailAddress::parse(ANN).unwrap(), address: MailAddress::parse("ann@new.example").unwrap() };
    world.store().recovery_set(&[entry], jiff::Timestamp::now()).await.unwrap();
    assert_eq!(set(&world, &code, "Correct-horse-7").await.status, 410);
    ask(&world, ANN).await;
    let second = crate::reset::code(&mails(&world, 2).await[1]);
    world.delete("acme").await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_ready("acme").await;
    assert_eq!(set(&world, &second, "Correct-horse-7").await.status, 410);
    assert_eq!(password(&world), FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_refuses_leaves_no_link_and_no_trace_on_the_page() {
    let world = world().await;
    world.simulators.sink.refuse_next(451, "try later");
    assert_eq!(ask(&world, ANN).await.status, 303);
    audited(&world, "request", ANN, "MailDeferred").await;
    // the next request is not held back by a link that never left
    assert_eq!(ask(&world, ANN).await.status, 303);
    let mail = mails(&world, 1).await.remove(0);
    assert_eq!(set(&world, &code(&mail), "Correct-horse-7").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_from_elsewhere_are_not_taken() {
    let world = world().await;
    let form = form_token(&world, "/").await;
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let good = encoded(&[("form", &form), ("mailbox", ANN)]);
    let own = format!("http://{}", world.authority(HOST));
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u16);
    let cases: &[Case<'_>] = &[
        (&[kind, ("origin", &own)], &good, 303),
        (&[kind, ("origin", "null")], &good, 303),
        (&[kind, ("origin", "https://evil.example")], &good, 400),
        (&[kind, ("sec-fetch-site", "cross-site")], &good, 400),
        (&[("content-type", "text/plain")], &good, 400),
        (&[], &good, 400),
        (&[kind], "mailbox=ann%40acme.localhost", 400),
        (&[kind], "form=1.2.3&mailbox=ann%40acme.localhost", 400),
        (&[kind], &format!("{good}&mailbox=bob%40acme.localhost"), 400),
        (&[kind], &format!("{good}%0d%0aBcc:x"), 400),
    ];
    for (headers, body, status) in cases {
        let answer = raw(world.pages, "POST", HOST, "/request", headers, body).await;
        assert_eq!(answer.status, *status, "{headers:?} {body}");
    }
    // what is no address of this domain is said at once, because it says nothing about anybody
    for mailbox in ["ann", "ann@globex.localhost", "<script>@acme.localhost", "a b@acme.localhost"] {
        let answer = ask(&world, mailbox).await;
        assert_eq!(answer.status, 422, "{mailbox}");
        assert!(answer.body.contains("Enter the whole address, like name@acme.localhost"), "{mailbox}");
        assert!(!answer.body.contains("<script>@"), "escaped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_leads_to_the_host_at_which_it_was_asked_for_while_a_new_one_is_not_proved() {
    let world = world().await;
    // given a changed host, whose route is somebody else's
    let mut config = world.simulators.caddy.config();
    let servers = config["apps"]["http"]["servers"].as_object_mut().unwrap();
    let routes = servers.values_mut().next().unwrap()["routes"].as_array_mut().unwrap();
    routes.insert(0, json!({"match": [{"host": ["password.acme.localhost"]}], "handle": [], "terminal": true}));
    world.simulators.caddy.load(config);
    world.patch("acme", json!({"spec": {"subdomain": "password"}})).await;
    world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
    // when a link is asked for at the former host, then it leads there and works
    assert_eq!(ask(&world, ANN).await.status, 303);
    let mail = &mails(&world, 1).await[0];
    assert!(mail.text.contains(&format!("http://{}/r#", world.authority(HOST))), "{}", mail.text);
    assert!(!mail.text.contains("password.acme.localhost"), "{}", mail.text);
    assert_eq!(set(&world, &code(mail), "Correct-horse-7").await.status, 200);
}
