//! What the server says about itself: version, health, discovery, OpenAPI, reviews.
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, LOCATION, VARY};
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::accept::{self, Encoding, Kind};
use super::answer::{json_answer, text_answer, with_warnings};
use super::catalog::Catalog;
use super::discovery::{self, Review};
use super::options::{self, Options};
use super::rest::{Answer, AnswerBody, ApiServer, Call};
use super::reviews;
use super::status::ApiError;
use super::{body, openapi, version_info};

/// Parts whose health is asked for one by one.
const CHECKS: [&str; 3] = ["ping", "log", STORE];
const STORE: &str = "etcd";

impl ApiServer {
    /// The answer of everything that is not an object; `None` for objects. `unwritable` is why the store cannot be
    /// written to.
    pub(super) fn about_itself(&self, segments: &[&str], call: &mut Call, unwritable: Option<&str>) -> Option<Answer> {
        if let Some((review, namespace)) = discovery::review_at(segments) {
            return Some(self.review(review, namespace, call));
        }
        let answer = match segments {
            ["healthz" | "livez" | "readyz", ..] => return Some(health(segments, call, unwritable)),
            ["openapi", "v3", place @ ..] if !place.is_empty() => return Some(self.openapi(&place.join("/"), call)),
            ["openapi", "v3"] => {
                let index = openapi::index(&self.0.catalog.all(&self.0.store));
                return Some(Ok(text_answer(200, index.to_string())));
            }
            [] | ["version" | "api" | "apis"] | ["api", _] | ["apis", _] | ["apis", _, _]
                if call.method != Method::GET =>
            {
                Err(ApiError::not_allowed())
            }
            ["version"] => accept::json_only(&call.accept).map(|()| {
                call.encoding = Encoding::Json;
                json_answer(200, &version_info())
            }),
            ["api" | "apis"] => self.discover(segments == ["api"], call),
            [] | ["api", _] | ["apis", _] | ["apis", _, _] => self.listed(segments, call),
            _ => return None,
        };
        Some(answer)
    }

    /// A document that has one form only.
    fn plain(&self, call: &mut Call, found: Option<Value>, missing: fn() -> ApiError) -> Answer {
        let found = found.ok_or_else(missing)?;
        (_, call.encoding) = accept::negotiate(&call.accept, Kind::Plain, None)?;
        Ok(json_answer(200, &found))
    }

    fn listed(&self, segments: &[&str], call: &mut Call) -> Answer {
        let resources = self.0.catalog.all(&self.0.store);
        match segments {
            ["api", version] => {
                self.plain(call, discovery::resource_list(&resources, "", version), ApiError::no_such_path)
            }
            ["apis", group] => self.plain(call, discovery::group(&resources, group), ApiError::no_such_page),
            ["apis", group, version] => {
                let built_in = Catalog::is_built_in(group) || discovery::is_review_group(group);
                let missing = if built_in { ApiError::no_such_path } else { ApiError::no_such_page };
                self.plain(call, discovery::resource_list(&resources, group, version), missing)
            }
            _ => {
                let mut paths = discovery::paths(&resources);
                for check in ["healthz", "livez", "readyz"] {
                    paths.push(format!("/{check}"));
                    paths.extend(CHECKS.iter().map(|part| format!("/{check}/{part}")));
                }
                paths.extend(["/openapi/v3".to_owned(), "/version".to_owned()]);
                paths.sort();
                self.plain(call, Some(json!({"paths": paths})), ApiError::no_such_page)
            }
        }
    }

    /// `/api` and `/apis`: aggregated for those who ask for it.
    fn discover(&self, core: bool, call: &mut Call) -> Answer {
        let resources = self.0.catalog.all(&self.0.store);
        let (aggregated, encoding) = accept::discovery(&call.accept)?;
        call.encoding = encoding;
        if !aggregated {
            let found = if core { discovery::core_versions(&call.host) } else { discovery::group_list(&resources) };
            return Ok(json_answer(200, &found));
        }
        let text = discovery::aggregated(&resources, core);
        let mut response = tagged(&text, call);
        if response.status() == 200 {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED));
        }
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        Ok(response)
    }

    /// The document of one group version. Its address in the index carries its hash: that answer stays valid.
    fn openapi(&self, place: &str, call: &mut Call) -> Answer {
        let Some(document) = openapi::document(&self.0.catalog.all(&self.0.store), place) else {
            return Ok(bare(404));
        };
        if accept::json_only(&call.accept).is_err() {
            return Ok(bare(406));
        }
        call.encoding = Encoding::Json;
        let hash = openapi::hash(&document);
        match call.parameter("hash") {
            Some(asked) if asked != hash => {
                let mut response = bare(301);
                if let Ok(address) = HeaderValue::from_str(&openapi::address(place, &hash)) {
                    response.headers_mut().insert(LOCATION, address);
                }
                Ok(response)
            }
            asked => {
                let mut response = tagged(&document, call);
                if asked.is_some() {
                    let year = self.0.clock.now().saturating_add(jiff::SignedDuration::from_hours(365 * 24));
                    let until = year.unwrap_or(jiff::Timestamp::MAX).strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
                    let headers = response.headers_mut();
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
                    if let Ok(until) = HeaderValue::from_str(&until) {
                        headers.insert(EXPIRES, until);
                    }
                }
                Ok(response)
            }
        }
    }

    fn review(&self, review: &Review, namespace: Option<&str>, call: &mut Call) -> Answer {
        if call.method != Method::POST {
            return Err(ApiError::not_allowed());
        }
        let resource = review.resource();
        (_, call.encoding) = accept::negotiate(&call.accept, Kind::Plain, Some(&resource))?;
        options::check(Options::Create, &call.query, &Value::Null)?;
        let served = self.0.catalog.all(&self.0.store);
        let known = |version: &str, kind: &str| {
            served.iter().any(|r| r.kind == kind && r.api_version() == version) || discovery::is_review(version, kind)
        };
        let given = body::object(&resource, known, &call.content_type, &call.body)?;
        let mut warnings = Vec::new();
        let given = reviews::checked(&resource, given, call.unknown_fields(), &mut warnings)?;
        let now = self.0.clock.now();
        let answered = reviews::answer(&resource, given, namespace, self.token(), now)?;
        Ok(with_warnings(json_answer(201, &answered), &warnings))
    }
}

/// `/livez` and the like, and single parts of them. Every method will do. What cannot be written to is the store's
/// part, which is called as real servers call theirs.
fn health(segments: &[&str], call: &Call, unwritable: Option<&str>) -> Answer {
    let name = segments[0];
    let asked = segments[1..].join("/");
    if !asked.is_empty() && !CHECKS.contains(&asked.as_str()) {
        return Err(ApiError::no_such_page());
    }
    let excluded = |check: &str| call.query.iter().any(|(key, value)| key == "exclude" && value == check);
    let broken = |check: &str| unwritable.filter(|_| check == STORE && !excluded(check));
    if !asked.is_empty() {
        return Ok(match broken(&asked) {
            Some(why) => text_answer(500, format!("internal server error: {why}\n")),
            None => text_answer(200, "ok".to_owned()),
        });
    }
    let lines = CHECKS.map(|check| match broken(check) {
        Some(why) => format!("[-]{check} failed: {why}\n"),
        None => format!("[+]{check} {}ok\n", if excluded(check) { "excluded: " } else { "" }),
    });
    if broken(STORE).is_some() {
        return Ok(text_answer(500, format!("{}{name} check failed\n", lines.concat())));
    }
    if !call.query.iter().any(|(key, _)| key == "verbose") {
        return Ok(text_answer(200, "ok".to_owned()));
    }
    Ok(text_answer(200, format!("{}{name} check passed\n", lines.concat())))
}

/// A document with the tag by which clients keep it; 304 to those who have it already.
fn tagged(document: &Value, call: &Call) -> Response<AnswerBody> {
    let tag = format!("\"{}\"", openapi::hash(document));
    let known = call.if_none_match.split(',').any(|had| had.trim() == tag);
    let mut response = if known { bare(304) } else { json_answer(200, document) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn bare(status: u16) -> Response<AnswerBody> {
    let mut response = text_answer(status, String::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}
