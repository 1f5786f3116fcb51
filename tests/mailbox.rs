//! MXroute through its simulator: what is asked, what is understood.
use std::sync::Arc;
use std::time::Duration;

use portalkeeper::api::{MailAddress, MailDomain};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use portalkeeper::mailbox::mxroute::double::MxrouteDouble;
use portalkeeper::mailbox::mxroute::{Mxroute, MxrouteOptions};
use portalkeeper::mailbox::{MailboxProvider, MailboxState, ProviderError, SenderState};

const KEY: &str = "mx-key-0123456789";

struct Bench {
    double: Arc<MxrouteDouble>,
    running: RunningDouble,
    provider: Mxroute,
}

async fn bench() -> Bench {
    let double = Arc::new(MxrouteDouble::new());
    double.accept_key(KEY);
    double.add_mailbox("ann@acme.example", "Before-1234");
    let running = RunningDouble::start(double.clone()).await.unwrap();
    let provider = Mxroute::new(MxrouteOptions {
        api_url: running.url.clone(),
        server: "eagle.mxlogin.com".into(),
        username: "owner".into(),
        api_key: Secret::new(KEY),
    })
    .unwrap();
    Bench { double, running, provider }
}

fn ann() -> MailAddress {
    MailAddress::parse("ann@acme.example").unwrap()
}

#[tokio::test]
async fn a_password_is_set_with_one_call_and_nothing_else() {
    let bench = bench().await;
    bench.provider.set_password(&ann(), &Secret::new("Correct-horse-7")).await.unwrap();
    assert_eq!(bench.double.password("ann@acme.example").as_deref(), Some("Correct-horse-7"));
    let calls: Vec<_> = bench.running.log.calls().into_iter().map(|c| (c.method, c.path, c.status)).collect();
    assert_eq!(calls, [("PATCH".to_owned(), "/domains/acme.example/email-accounts/ann".to_owned(), 200)]);
}

#[tokio::test]
async fn mailboxes_are_told_apart_and_the_panel_user_is_never_touched() {
    let bench = bench().await;
    bench.double.add_mailbox("sue@acme.example", "Before-1234");
    bench.double.suspend("sue@acme.example");
    bench.double.add_mailbox("owner@acme.example", "Before-1234");
    let state = async |text: &str| bench.provider.mailbox(&MailAddress::parse(text).unwrap()).await.unwrap();
    assert_eq!(state("ann@acme.example").await, MailboxState::Exists);
    assert_eq!(state("sue@acme.example").await, MailboxState::Suspended);
    assert_eq!(state("bob@acme.example").await, MailboxState::Missing);
    assert_eq!(state("ann@other.example").await, MailboxState::Missing);
    bench.running.log.clear();
    let owner = MailAddress::parse("owner@acme.example").unwrap();
    assert_eq!(bench.provider.mailbox(&owner).await, Ok(MailboxState::Missing));
    let refused = bench.provider.set_password(&owner, &Secret::new("Correct-horse-7")).await;
    assert_eq!(refused, Err(ProviderError::Missing));
    assert!(bench.running.log.calls().is_empty());
}

#[tokio::test]
async fn failures_have_their_class_and_hide_key_and_password() {
    let bench = bench().await;
    let password = Secret::new("Correct-horse-7");
    let set = async || bench.provider.set_password(&ann(), &password).await.unwrap_err();
    let answer = |status, text: &str| Fault::Answer(DoubleResponse::json(status, &serde_json::from_str(text).unwrap()));
    let cases = [
        (
            answer(
                400,
                r#"{"success":false,"error":{"code":"VALIDATION_ERROR","message":"weak Correct-horse-7","field":"password"}}"#,
            ),
            "PasswordRejected",
        ),
        (
            answer(422, r#"{"success":false,"error":{"code":"BUSINESS_ERROR","message":"weak","field":"password"}}"#),
            "PasswordRejected",
        ),
        (
            answer(
                401,
                r#"{"success":false,"error":{"code":"UNAUTHORIZED","message":"key mx-key-0123456789 unknown"}}"#,
            ),
            "KeyRefused",
        ),
        (answer(404, r#"{"success":false,"error":{"code":"NOT_FOUND","message":"no"}}"#), "MailboxMissing"),
        (Fault::Answer(DoubleResponse::html(502, "<html>bad gateway</html>")), "OutcomeUnknown"),
        (Fault::Answer(DoubleResponse::html(200, "<html>login</html>")), "ProviderUnavailable"),
        (Fault::CutAfter, "OutcomeUnknown"),
    ];
    for (fault, reason) in cases {
        bench.running.faults.push("PATCH", "email-accounts", 1, fault);
        let error = set().await;
        assert_eq!(error.reason(), reason, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("Correct-horse-7") && !shown.contains(KEY), "{shown}");
    }
    let limited = DoubleResponse::json(
        429,
        &serde_json::json!({"success": false, "error": {"code": "RATE_LIMITED", "message": "slow"}}),
    );
    bench.running.faults.push("PATCH", "email-accounts", 1, Fault::Answer(limited.with_header("retry-after", "7")));
    assert_eq!(set().await, ProviderError::Throttled { retry_after: Some(Duration::from_secs(7)) });
    bench.double.revoke_keys();
    assert_eq!(set().await.reason(), "KeyRefused");
}

#[tokio::test]
async fn a_sender_that_the_host_would_refuse_is_told_with_what_to_do() {
    let bench = bench().await;
    let domain = MailDomain::parse("acme.example").unwrap();
    let sender = async |from: &str| bench.provider.sender(&domain, &MailAddress::parse(from).unwrap()).await.unwrap();
    let SenderState::NeedsAction(words) = sender("reset@acme.example").await else { panic!("not deliverable yet") };
    assert!(words.starts_with("the mail host will refuse mails from reset@acme.example"), "{words}");
    assert!(matches!(sender("ann@acme.example").await, SenderState::Ok(_)));
    assert!(matches!(sender("no-reply@elsewhere.example").await, SenderState::Ok(_)));
    bench.double.add_forwarder("reset@acme.example", ":blackhole:");
    assert!(matches!(sender("reset@acme.example").await, SenderState::Ok(_)));
    assert!(bench.running.log.writes().is_empty());
}
