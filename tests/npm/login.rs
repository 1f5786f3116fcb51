//! Where the API is, its version, the login, and the status codes that mean something else.
use jiff::SignedDuration;
use portalkeeper::backends::ErrorClass;
use portalkeeper::backends::npm::Version;
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::double::{IDENTITY, SECRET, User};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::json;

use super::{HOST, Scene, VERSIONS};

#[tokio::test]
async fn the_token_is_kept_and_an_expired_one_is_replaced_whatever_the_version_says() {
    for version in VERSIONS {
        let scene = Scene::of(version, Source::None).await;
        // given two portals, made with one login
        scene.want(HOST).await.expect("made");
        scene.want("reset.globex.example").await.expect("made");
        assert_eq!(scene.double.logins(), 1, "{version}");
        // when the token's day is over, then one more login suffices
        scene.clock.advance(SignedDuration::from_hours(30));
        scene.want(HOST).await.expect("seen");
        assert_eq!(scene.double.logins(), 2, "{version}");
    }
}

#[tokio::test]
async fn a_token_that_expires_early_is_replaced_in_the_middle_of_the_work() {
    // 400 since 2.13, 401 before
    for (version, status) in [(Version(2, 12, 6), 401), (Version(2, 15, 1), 400)] {
        let scene = Scene::of(version, Source::None).await;
        scene.want(HOST).await.expect("made");
        let expired = json!({"error": {"code": status, "message": "Token has expired", "message_i18n": {"name": "x"}}});
        scene.running.faults.push("PUT", "", 1, Fault::Answer(DoubleResponse::json(status, &expired)));
        scene.double.edit_row(1, json!({"forward_port": 1}));
        scene.running.log.clear();
        scene.want(HOST).await.expect("repaired");
        assert_eq!(scene.writes(), [format!("PUT proxy-hosts/1 {status}"), "PUT proxy-hosts/1 200".to_owned()]);
        assert_eq!(scene.double.logins(), 2);
    }
}

#[tokio::test]
async fn a_token_of_a_rebuilt_installation_answers_500_and_is_replaced() {
    for version in VERSIONS {
        let scene = Scene::of(version, Source::None).await;
        scene.want(HOST).await.expect("made");
        scene.double.rebuild_keys();
        scene.want(HOST).await.expect("seen");
        assert_eq!(scene.double.logins(), 2, "{version}");
        assert!(scene.writes().iter().all(|write| !write.starts_with("PUT")), "{version}");
    }
}

#[tokio::test]
async fn a_refused_login_is_told_once_a_minute_and_without_the_password() {
    for version in VERSIONS {
        let mut scene = Scene::of(version, Source::None).await;
        scene.secret = "wrong-password-0815".to_owned();
        scene.restart();
        let refused = scene.want(HOST).await.expect_err("refused");
        assert_eq!((refused.class, refused.reason), (ErrorClass::Credential, "LoginRefused"), "{version}");
        assert!(refused.message.contains("Invalid email or password; check identity and secret"), "{refused}");
        assert!(!refused.message.contains("wrong-password"), "{refused}");
        // when it is asked again at once, then NPM is left alone; a minute later it is not
        scene.want(HOST).await.expect_err("refused");
        assert_eq!(scene.double.logins(), 1, "{version}");
        scene.clock.advance(SignedDuration::from_secs(61));
        scene.want(HOST).await.expect_err("refused");
        assert_eq!(scene.double.logins(), 2, "{version}");
        assert_eq!(scene.writes(), [""; 0], "{version}");
    }
}

#[tokio::test]
async fn a_login_with_a_second_factor_is_refused_with_advice() {
    let scene = Scene::given(Source::None).await;
    scene.double.set_user(User { second_factor: true, ..User::admin() });
    let refused = scene.want(HOST).await.expect_err("refused");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Credential, "TwoFactorRequired"));
    assert!(refused.message.contains("make a user without it for Portalkeeper"), "{refused}");
}

#[tokio::test]
async fn a_user_who_may_not_manage_hosts_is_told_what_is_needed_before_anything_is_written() {
    for version in VERSIONS {
        for (proxy_hosts, certificates) in [("view", "manage"), ("manage", "view"), ("hidden", "hidden")] {
            let scene = Scene::of(version, Source::None).await;
            scene.double.set_user(User { admin: false, proxy_hosts, certificates, ..User::admin() });
            let refused = scene.want(HOST).await.expect_err("refused");
            assert_eq!((refused.class, refused.reason), (ErrorClass::Credential, "PermissionMissing"), "{version}");
            assert!(refused.message.contains("`manage` for proxy hosts and for certificates"), "{refused}");
            assert_eq!(scene.writes(), [""; 0], "{version}");
        }
    }
}

#[tokio::test]
async fn a_permission_taken_away_in_the_middle_looks_like_404_and_is_not_taken_for_a_deleted_host() {
    for version in VERSIONS {
        // given a host of ours, and a read that answers as to somebody who may not see it
        let scene = Scene::of(version, Source::None).await;
        scene.want(HOST).await.expect("made");
        scene.double.edit_row(1, json!({"forward_port": 1}));
        let gone = json!({"error": {"code": 404, "message": "Not Found - /nginx/proxy-hosts/1"}});
        scene.running.faults.push("GET", "/proxy-hosts/1", 2, Fault::Answer(DoubleResponse::json(404, &gone)));
        scene.running.log.clear();
        // when it has to be repaired, then no second one is made
        let refused = scene.want(HOST).await.expect_err("refused");
        assert_eq!(refused.reason, "PermissionMissing", "{version}");
        assert_eq!(scene.writes(), [""; 0], "{version}");
        assert_eq!(scene.double.hosts().len(), 1, "{version}");
    }
}

#[tokio::test]
async fn a_user_who_sees_only_what_is_his_is_told_of_a_conflict_that_he_cannot_see() {
    let scene = Scene::given(Source::None).await;
    let id = scene.double.add_host(&[HOST], json!({}));
    scene.double.edit_row(id, json!({"owner_user_id": 7}));
    scene.double.set_user(User { admin: false, sees_all: false, ..User::admin() });
    let refused = scene.want(HOST).await.expect_err("taken");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignHost"));
    assert_eq!(
        refused.message,
        format!("{HOST} is taken in NPM by something that NPM's user may not see; remove the name there")
    );
}

#[tokio::test]
async fn versions_that_cannot_be_used_and_addresses_that_are_not_npms_are_named() {
    let old = Scene::of(Version(2, 11, 3), Source::None).await;
    let refused = old.want(HOST).await.expect_err("too old");
    assert_eq!(refused.reason, "VersionUnsupported");
    assert_eq!(refused.message, "NPM 2.11.3 is too old; 2.12.0 is the oldest that is supported");

    let unset_up = Scene::given(Source::None).await;
    unset_up.double.unset_up();
    assert_eq!(unset_up.want(HOST).await.expect_err("no user").reason, "SetupUnfinished");

    // what stands before NPM is told as what it is
    for (answer, reason, words) in [
        (DoubleResponse::empty(429).with_header("retry-after", "7"), "Throttled", "asks to wait (429)"),
        (DoubleResponse::empty(403), "NotNpm", "does not let this program through (403)"),
        (
            DoubleResponse::empty(302).with_header("location", "https://login.example/?token=canary"),
            "NotNpm",
            "leads to https://login.example/; name the address at which the API itself answers (302)",
        ),
    ] {
        let before = Scene::given(Source::None).await;
        before.running.faults.push("GET", "", 9, Fault::Answer(answer));
        let refused = before.want(HOST).await.expect_err("not NPM");
        assert_eq!(refused.reason, reason);
        assert!(refused.message.ends_with(words), "{refused}");
    }

    let other = Scene::given(Source::None).await;
    let page = DoubleResponse::html(200, "<title>Something else</title>");
    other.running.faults.push("GET", "", 9, Fault::Answer(page));
    let refused = other.want(HOST).await.expect_err("not NPM");
    assert_eq!(refused.reason, "NotNpm");
    assert!(refused.message.ends_with("like http://127.0.0.1:81"), "{refused}");
    assert_eq!(other.double.logins(), 0, "the password is not sent to something else");
}

#[tokio::test]
async fn no_message_shows_a_credential() {
    // given an NPM whose words quote what it got
    let scene = Scene::given(Source::None).await;
    let quoting = json!({"error": {"code": 400, "message": format!("no {SECRET} for {IDENTITY}")}});
    scene.running.faults.push("POST", "/tokens", 1, Fault::Answer(DoubleResponse::json(400, &quoting)));
    // then neither the first answer nor what is remembered of it shows it
    for _ in 0..2 {
        let refused = scene.want(HOST).await.expect_err("refused");
        assert!(refused.message.contains("[redacted]") && !refused.message.contains(SECRET), "{refused}");
    }
    assert_eq!(scene.double.logins(), 0, "the second was not sent");
    // and neither is the token of a session
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    let token = scene.double.token().expect("a session");
    let quoting = json!({"error": {"code": 422, "message": format!("no Bearer {token} given")}});
    scene.running.faults.push("GET", "/nginx", 9, Fault::Answer(DoubleResponse::json(422, &quoting)));
    let refused = scene.want("other.acme.example").await.expect_err("refused");
    assert!(refused.message.contains("no Bearer [redacted] given"), "{refused}");
}
