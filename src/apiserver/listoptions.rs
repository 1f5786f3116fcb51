//! The query parameters of lists and watches: what contradicts itself is refused. Pure.
use serde_json::json;

use super::causes;
use super::rest::Call;
use super::schema::Cause;
use super::status::ApiError;

/// How a version limits what is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Exact,
    NotOlderThan,
}

/// Parameters of a list or watch.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Items of a page; 0 for all.
    pub limit: usize,
    pub token: Option<String>,
    /// `None` where none is said; 0 means any.
    pub version: Option<u64>,
    pub matching: Option<Match>,
    pub initial_events: Option<bool>,
    pub bookmarks: bool,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// A number as the server reads it. Errors: 400.
fn number(call: &Call, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = call.parameter(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = if whole { "value out of range" } else { "invalid syntax" };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {why}", json!(text)))
    })
}

/// Everything but `0` and `false` is true.
fn flag(call: &Call, name: &str) -> Option<bool> {
    let value = call.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())?;
    Some(value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// Whether a list is asked to be a watch.
pub fn is_watch(call: &Call) -> bool {
    flag(call, "watch").unwrap_or(false)
}

impl ListOptions {
    /// Errors: 400 for what is no number, 422 for what does not go together, 500 for a watch from no version.
    pub fn of(call: &Call, watch: bool) -> Result<Self, ApiError> {
        let limit = number(call, "limit")?.unwrap_or(0);
        let timeout = number(call, "timeoutSeconds")?;
        let text = call.parameter("resourceVersion").unwrap_or_default();
        let token = call.parameter("continue").map(str::to_owned);
        let matching = call.parameter("resourceVersionMatch").unwrap_or_default();
        let initial_events = flag(call, "sendInitialEvents");
        let wrong = if watch {
            watch_problems(matching, initial_events, token.is_some())
        } else {
            list_problems(matching, text, initial_events, token.is_some())
        };
        if !wrong.is_empty() {
            return Err(ApiError::invalid("ListOptions.meta.k8s.io", "", &wrong));
        }
        let version = match text {
            "" => None,
            text => Some(text.parse::<u64>().map_err(|_| no_version(text, watch))?),
        };
        // The token carries the version of its list.
        if token.is_some() && version.is_some_and(|version| version > 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let matching = match matching {
            "Exact" => Some(Match::Exact),
            "NotOlderThan" => Some(Match::NotOlderThan),
            _ => None,
        };
        Ok(Self {
            limit: usize::try_from(limit).unwrap_or(0),
            token,
            version,
            matching,
            initial_events,
            bookmarks: flag(call, "allowWatchBookmarks").unwrap_or(false),
            timeout: timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0),
        })
    }
}

/// A version that is no number. Reading one object and watching give it no reason.
pub fn no_version(text: &str, unnamed: bool) -> ApiError {
    let shown = json!(text);
    let words = format!("resourceVersion: Invalid value: {shown}: strconv.ParseUint: parsing {shown}: invalid syntax");
    match unnamed {
        true => ApiError::unnamed(500, words),
        false => ApiError::bad_request(format!("invalid resource version: {words}")),
    }
}

fn list_problems(matching: &str, version: &str, initial_events: Option<bool>, goes_on: bool) -> Vec<Cause> {
    let field = "resourceVersionMatch";
    let mut found = Vec::new();
    if !matching.is_empty() {
        if version.is_empty() {
            found
                .push(causes::forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if goes_on {
            found.push(causes::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            found.push(causes::unsupported(field, &json!(matching), &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == "0" {
            let words = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            found.push(causes::forbidden(field, words));
        }
    }
    if initial_events.is_some() {
        found.push(causes::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    found
}

fn watch_problems(matching: &str, initial_events: Option<bool>, goes_on: bool) -> Vec<Cause> {
    let field = "resourceVersionMatch";
    let mut found = Vec::new();
    if initial_events.is_some() && matching != "NotOlderThan" {
        let words = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        found.push(causes::forbidden(field, words));
    }
    if goes_on {
        found.push(causes::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if !matching.is_empty() {
        if initial_events.is_none() {
            let words = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            found.push(causes::forbidden(field, words));
        }
        if matching != "NotOlderThan" {
            found.push(causes::unsupported(field, &json!(matching), &["NotOlderThan"]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_told() {
        let words = |causes: Vec<Cause>| causes.into_iter().map(|cause| cause.message).collect::<Vec<_>>();
        assert_eq!(words(list_problems("", "", None, true)), [""; 0]);
        assert_eq!(
            words(list_problems("Exact", "0", None, false)),
            ["Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""]
        );
        assert_eq!(words(watch_problems("NotOlderThan", Some(true), false)), [""; 0]);
        assert_eq!(words(watch_problems("Exact", Some(true), false)).len(), 2);
        assert_eq!(words(watch_problems("", Some(false), false)).len(), 1);
    }
}
