//! The limits of the serving loop, which the framework alone does not have.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use portalkeeper::http::serve::{Limits, read_body, serve};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::raw;

/// Reads the body within bounds and says what came of it; panics on request.
async fn start(limits: Limits) -> (SocketAddr, ShutdownHandle, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (handle, shutdown) = Shutdown::new();
    let service = tower::service_fn(|request: Request<Incoming>| async move {
        assert_ne!(request.uri().path(), "/panic", "a handler that panics");
        if request.uri().path() == "/wait" {
            std::future::pending::<()>().await;
        }
        let body = read_body(request.into_body(), 100, Duration::from_millis(300)).await;
        let words = body.map_or_else(|error| error.reason().to_owned(), |body| format!("{} bytes", body.len()));
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(words))))
    });
    (address, handle, tokio::spawn(serve(listener, service, limits, shutdown, None)))
}

fn limits() -> Limits {
    Limits { max_connections: 2, header_timeout: Duration::from_millis(300), max_header_bytes: 8192 }
}

/// Everything that comes until the connection ends, and how long that took.
async fn rest(mut stream: TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is ended");
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_headers_is_cut_off() {
    let (address, _handle, _) = start(limits()).await;
    for sent in ["", "GET / HTTP/1.1\r\nHost: a.example\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let (answer, took) = rest(stream).await;
        assert!(!answer.contains("200 OK") && took < Duration::from_secs(10), "{sent:?}: {answer} after {took:?}");
    }
    assert_eq!(raw(address, "GET", "a.example", "/", &[], "").await.body, "0 bytes");
}

#[tokio::test]
async fn headers_and_bodies_have_a_size_and_bodies_a_time() {
    let (address, _handle, _) = start(limits()).await;
    let long = "x".repeat(20_000);
    assert_eq!(raw(address, "GET", "a.example", "/", &[("x-long", &long)], "").await.status, 431);
    assert_eq!(raw(address, "POST", "a.example", "/", &[], &"y".repeat(100)).await.body, "100 bytes");
    assert_eq!(raw(address, "POST", "a.example", "/", &[], &"y".repeat(101)).await.body, "BodyTooLarge");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: 50\r\n\r\nslow";
    stream.write_all(head).await.unwrap();
    let (answer, _) = rest(stream).await;
    assert!(answer.ends_with("BodyTooSlow"), "{answer}");
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_served_at_a_time() {
    let (address, _handle, _) = start(Limits { header_timeout: Duration::from_secs(60), ..limits() }).await;
    let first = TcpStream::connect(address).await.unwrap();
    let _second = TcpStream::connect(address).await.unwrap();
    // given that both places are taken, the third waits
    let third = tokio::spawn(async move { raw(address, "GET", "a.example", "/", &[], "").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!third.is_finished());
    // until one is free
    drop(first);
    assert_eq!(third.await.unwrap().status, 200);
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let (address, _handle, _) = start(Limits { header_timeout: Duration::from_secs(600), ..limits() }).await;
    // given one connection that waits for its answer, and one on which nothing is asked
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    // when others come, then they are served in the place of the idle one
    for _ in 0..3 {
        assert_eq!(raw(address, "GET", "a.example", "/", &[], "").await.status, 200);
    }
    assert_eq!(rest(idle).await.0, "");
    // and again, however many connections say nothing
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(raw(address, "GET", "a.example", "/", &[], "").await.status, 200);
    // the busy one still waits
    let more = tokio::time::timeout(Duration::from_millis(50), busy.read_u8()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_panic_is_one_answer_and_the_end_comes_when_asked_for() {
    let (address, handle, running) = start(limits()).await;
    let answer = raw(address, "GET", "a.example", "/panic", &[], "").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.body, "Something went wrong on our side. Please try again later.\n");
    assert_eq!(raw(address, "GET", "a.example", "/", &[], "").await.status, 200);
    // open connections do not hold the end up
    let _idle = TcpStream::connect(address).await.unwrap();
    handle.begin();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
