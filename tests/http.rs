//! The client against a double that misbehaves.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portalkeeper::config::Secret;
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, Fault, RunningDouble};
use portalkeeper::http::{Client, ClientOptions, HttpError};
use serde_json::{Value, json};

#[derive(Default)]
struct Counter(AtomicUsize);

impl Double for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let seen = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        let token = request.headers.get("authorization").cloned();
        DoubleResponse::json(200, &json!({"seen": seen, "path": request.path, "token": token}))
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

async fn given() -> (Arc<Counter>, RunningDouble, Client) {
    let counter = Arc::new(Counter::default());
    let double = RunningDouble::start(counter.clone()).await.expect("a loopback port");
    let mut options = ClientOptions::new("counter", double.url.clone());
    options.headers = vec![("authorization", Secret::new("Bearer canary-4711"))];
    options.timeout = Duration::from_millis(500);
    options.max_body = 1000;
    let client = Client::new(options).expect("a client");
    (counter, double, client)
}

#[tokio::test]
async fn a_read_is_repeated_over_passing_faults_and_a_write_is_not() {
    let (counter, double, client) = given().await;
    // given a gateway that fails twice
    double.faults.push("GET", "/a", 2, Fault::Answer(DoubleResponse::html(502, "<h1>Bad gateway</h1>")));
    double.faults.push("POST", "/a", 1, Fault::Answer(DoubleResponse::html(502, "<h1>Bad gateway</h1>")));
    // when it is read, then the third try's answer counts
    let read = client.get("/a").query(&[("name", "x y")]).send().await.expect("an answer");
    assert_eq!((read.status, read.json().expect("JSON")["token"].as_str()), (200, Some("Bearer canary-4711")));
    assert_eq!(double.log.calls().iter().map(|c| c.status).collect::<Vec<_>>(), [502, 502, 200]);
    assert_eq!(double.log.calls()[0].query, "name=x+y");
    // when it is written, then the one answer counts
    assert_eq!(client.post("/a").json(&json!({})).send().await.expect("an answer").status, 502);
    assert_eq!(double.log.writes().len(), 1);
    assert_eq!(counter.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_throttled_call_is_never_repeated() {
    let (_, double, client) = given().await;
    let slow_down = DoubleResponse::text(429, "slow down").with_header("retry-after", "30");
    double.faults.push("*", "", 1, Fault::Answer(slow_down));
    let answer = client.get("/a").send().await.expect("an answer");
    assert_eq!((answer.status, answer.retry_after()), (429, Some(Duration::from_secs(30))));
    assert_eq!(double.log.calls().len(), 1);
}

#[tokio::test]
async fn a_write_cut_off_after_its_effect_is_told_as_unknown_and_not_repeated() {
    let (counter, double, client) = given().await;
    double.faults.push("POST", "/a", 1, Fault::CutAfter);
    let error = client.post("/a").json(&json!({})).send().await.expect_err("no answer");
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(counter.0.load(Ordering::SeqCst), 1, "done once, not repeated");
}

#[tokio::test]
async fn every_failure_is_told_in_words_without_secrets() {
    let (_, double, client) = given().await;
    let address = double.url.as_str().trim_end_matches('/').to_owned();
    double.faults.push("*", "/late", 1, Fault::Delay(Duration::from_secs(5)));
    let late = client.get("/late").send().await.expect_err("too late");
    assert_eq!(late.reason(), "Timeout");
    double.faults.push("*", "/big", 1, Fault::Answer(DoubleResponse::text(200, &"x".repeat(1001))));
    let big = client.get("/big").send().await.expect_err("too big");
    assert_eq!(big.to_string(), format!("counter at {address} sent more than 1000 bytes"));
    double.faults.push("*", "/html", 1, Fault::Answer(DoubleResponse::html(200, "<html>")));
    let html = client.get("/html").send().await.expect("an answer").json().expect_err("not JSON");
    assert_eq!(html.to_string(), format!("counter at {address} answered 200 with something that is not JSON"));
    // given that nothing listens any more
    drop(double);
    let mut gone = client.get("/").send().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !matches!(gone, Err(HttpError::Connect { .. })) && std::time::Instant::now() < deadline {
        gone = client.get("/").send().await;
    }
    let gone = gone.expect_err("nobody listens");
    assert_eq!(gone.to_string(), format!("cannot reach counter at {address}: connection refused"));
    for error in [late, big, html, gone] {
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
