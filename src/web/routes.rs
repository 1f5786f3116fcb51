//! What answers where, once it is known which portal the request is for.
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use hyper::{HeaderMap, Response, StatusCode};
use warp::{Filter, Rejection, Reply};

use super::form::Form;
use super::pages::{self, Problem};
use super::{Site, assets};
use crate::api::MailAddress;
use crate::config::Secret;
use crate::reset::{ConfirmOutcome, ServedPortal, form as form_token, live};

/// What was found out about a request before it came here.
#[derive(Clone)]
pub struct Visit {
    pub portal: Arc<ServedPortal>,
    /// The host asked for, canonical.
    pub host: String,
    pub client: IpAddr,
}

type Answer = Response<Bytes>;

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn page(status: StatusCode, text: String) -> Answer {
    answer(status, "text/html; charset=utf-8", text)
}

fn cached(mut response: Answer) -> Answer {
    let year = hyper::header::HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, year);
    response
}

/// All routes of a portal. Rejections are answered by the neutral page.
pub fn routes(site: Arc<Site>) -> impl Filter<Extract = (Answer,), Error = Infallible> + Clone {
    let visit = warp::ext::get::<Visit>();
    let site = warp::any().map(move || Arc::clone(&site));
    let get = |path: &'static str| warp::get().and(only(path)).and(visit);
    let post = |path: &'static str| {
        warp::post()
            .and(only(path))
            .and(visit)
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .and(site.clone())
    };
    let start = get("").and(site.clone()).map(start);
    let sent = get("sent").map(|visit: Visit| page(StatusCode::OK, pages::sent(&visit.portal)));
    let choose = get("r").and(site.clone()).map(choose);
    let style = get("style.css").map(|visit: Visit| {
        cached(answer(StatusCode::OK, "text/css; charset=utf-8", assets::style(&visit.portal.branding)))
    });
    let script =
        get("app.js").map(|_: Visit| cached(answer(StatusCode::OK, "text/javascript; charset=utf-8", assets::SCRIPT)));
    let logo = get("logo").map(logo);
    let live = warp::get()
        .and(warp::path!(".well-known" / "portalkeeper" / "live"))
        .and(visit)
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(site.clone())
        .map(alive);
    let request = post("request").map(request);
    let reset = post("reset").then(reset);
    start
        .or(sent)
        .unify()
        .or(choose)
        .unify()
        .or(style)
        .unify()
        .or(script)
        .unify()
        .or(logo)
        .unify()
        .or(live)
        .unify()
        .or(request)
        .unify()
        .or(reset)
        .unify()
        .or(visit.map(|visit: Visit| page(StatusCode::NOT_FOUND, pages::nothing(&visit.portal))))
        .unify()
        .recover(broken)
        .unify()
}

/// Exactly this one segment; the empty one is the root.
fn only(path: &'static str) -> impl Filter<Extract = (), Error = Rejection> + Copy {
    warp::path::full()
        .and_then(
            async move |full: warp::path::FullPath| {
                if full.as_str().strip_prefix('/') == Some(path) { Ok(()) } else { Err(warp::reject::not_found()) }
            },
        )
        .untuple_one()
}

/// A rejection without a portal cannot happen through the service; it must not tell anything if it does.
async fn broken(_: Rejection) -> Result<Answer, Infallible> {
    Ok(answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "Nothing here.\n"))
}

fn new_token(site: &Site, visit: &Visit) -> String {
    form_token::token(site.form_key(), &visit.host, site.resets.clock().now())
}

fn start(visit: Visit, site: Arc<Site>) -> Answer {
    page(StatusCode::OK, pages::start(&visit.portal, &new_token(&site, &visit), "", None))
}

fn choose(visit: Visit, site: Arc<Site>) -> Answer {
    page(StatusCode::OK, pages::choose(&visit.portal, &new_token(&site, &visit), "", None))
}

fn logo(visit: Visit) -> Answer {
    match &visit.portal.logo {
        Some(logo) => cached(answer(StatusCode::OK, logo.content_type, logo.bytes.clone())),
        None => page(StatusCode::NOT_FOUND, pages::nothing(&visit.portal)),
    }
}

fn alive(visit: Visit, query: String, site: Arc<Site>) -> Answer {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let nonce = pairs.find(|(name, _)| name == "nonce").map(|(_, nonce)| nonce.into_owned()).unwrap_or_default();
    if !live::is_nonce(&nonce) {
        let words = "give a nonce of 16 to 64 hexadecimal digits\n";
        return answer(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", words);
    }
    let echo = live::echo(site.resets.store().probe_key(), &visit.host, &visit.portal.uid, &nonce);
    answer(StatusCode::OK, "application/json", echo.to_string())
}

/// The form, if it is one of ours for this host and was sent from our page.
fn own_form(site: &Site, visit: &Visit, headers: &HeaderMap, body: &[u8]) -> Option<Form> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("sec-fetch-site").is_some_and(|from| from != "same-origin" && from != "none") {
        return None;
    }
    if let Some(origin) = header("origin").filter(|origin| *origin != "null") {
        let from = url::Url::parse(origin).ok()?;
        let from = from.host_str()?.to_owned();
        if !visit.portal.hosts.iter().any(|host| host.as_str() == from) {
            return None;
        }
    }
    let form = Form::parse(header("content-type"), body)
        .inspect_err(|error| tracing::debug!(reason = error.reason(), "a form that is not taken"))
        .ok()?;
    form_token::check(site.form_key(), &visit.host, form.text("form"), site.resets.clock().now()).then_some(form)
}

fn request(visit: Visit, headers: HeaderMap, body: Bytes, site: Arc<Site>) -> Answer {
    let Some(form) = own_form(&site, &visit, &headers, &body) else {
        return page(StatusCode::BAD_REQUEST, pages::stale(&visit.portal));
    };
    let mailbox = form.text("mailbox").trim();
    // Only the shape is checked here; what exists is nobody's business.
    let well_formed = MailAddress::parse(mailbox).is_ok_and(|address| *address.domain() == visit.portal.domain);
    if !well_formed {
        let words = format!("Enter the whole address, like name@{}", visit.portal.domain);
        let problem = Problem { field: "mailbox", words: &words };
        let shown: String = mailbox.chars().take(320).collect();
        let text = pages::start(&visit.portal, &new_token(&site, &visit), &shown, Some(&problem));
        return page(StatusCode::UNPROCESSABLE_ENTITY, text);
    }
    site.resets.request(&visit.portal, mailbox, visit.client);
    let mut response = page(StatusCode::SEE_OTHER, String::new());
    response.headers_mut().insert(LOCATION, hyper::header::HeaderValue::from_static("/sent"));
    response
}

async fn reset(visit: Visit, headers: HeaderMap, body: Bytes, site: Arc<Site>) -> Answer {
    let Some(form) = own_form(&site, &visit, &headers, &body) else {
        return page(StatusCode::BAD_REQUEST, pages::stale(&visit.portal));
    };
    let (code, password) = (form.text("code"), Secret::new(form.text("password")));
    let portal = &visit.portal;
    let again = |field, words: &str| {
        let problem = Problem { field, words };
        let text = pages::choose(portal, &new_token(&site, &visit), code, Some(&problem));
        page(StatusCode::UNPROCESSABLE_ENTITY, text)
    };
    if code.trim().is_empty() {
        return again("code", "Enter the code from the mail.");
    }
    if password.is_empty() {
        return again("password", "Enter a new password.");
    }
    match site.resets.confirm(portal, code, &password, visit.client).await {
        ConfirmOutcome::Changed => page(StatusCode::OK, pages::changed(portal)),
        ConfirmOutcome::PasswordRefused(words) => again("password", &words),
        ConfirmOutcome::LinkInvalid => page(StatusCode::GONE, pages::dead_link(portal)),
        ConfirmOutcome::TryLater => page(StatusCode::SERVICE_UNAVAILABLE, pages::later(portal)),
    }
}

/// Makes the routes' answers what the service passes on.
pub fn reply(answer: Answer) -> impl Reply {
    answer
}
