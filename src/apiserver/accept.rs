//! In which form and encoding an answer is wanted: the `Accept` header, read as Kubernetes reads it. Pure.
use super::catalog::Resource;
use super::discovery;
use super::status::ApiError;
use super::table::Form;

/// What whole answers can be written in, as refusals list it.
const OFFERED: &str = "application/json, application/yaml";
/// The same for watches.
const STREAMED: &str = "application/json;stream=watch";

/// How the answer's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// What answers a request, as far as it matters for the forms that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    List,
    Watch,
    /// Neither tables nor metadata: discovery, reviews, the version.
    Plain,
}

/// One range of the header: `application/json;as=Table;v=v1;g=meta.k8s.io`.
struct Range<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Range<'_> {
    fn encoding(&self) -> Option<Encoding> {
        match self.kind {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }
    /// `None` where the range asks for a form that is not offered. Parameters without meaning are passed over.
    fn form(&self) -> Option<Form> {
        let value = |name: &str| self.parameters.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let offered = value("g") == Some("meta.k8s.io") && value("v") == Some("v1");
        match value("as") {
            None => Some(Form::Whole),
            Some("Table") if offered => Some(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if offered => Some(Form::Metadata),
            Some(_) => None,
        }
    }
}

/// The header's ranges, the most wanted first.
fn ranges(accept: &str) -> Vec<Range<'_>> {
    let mut found: Vec<(f32, Range<'_>)> = accept
        .split(',')
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().filter(|kind| !kind.is_empty())?;
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let quality = parameters.iter().find(|(name, _)| *name == "q").and_then(|(_, q)| q.parse().ok());
            Some((quality.unwrap_or(1.0), Range { kind, parameters }))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, range)| range).collect()
}

/// The first wanted form that is offered. Built-in resources compare the media types first, without wildcards
/// but `*/*`, and refuse in other words. Errors: 406.
pub fn negotiate(accept: &str, kind: Kind, resource: Option<&Resource>) -> Result<(Form, Encoding), ApiError> {
    let accept = if accept.trim().is_empty() { "*/*" } else { accept };
    let ranges = ranges(accept);
    let named = |range: &Range<'_>| ["*/*", "application/json", "application/yaml"].contains(&range.kind);
    if !resource.is_some_and(Resource::is_custom) && !ranges.iter().any(named) {
        let streams = if matches!(kind, Kind::List | Kind::Watch) { format!(", {STREAMED}") } else { String::new() };
        let words = format!("406: Not Acceptable\n\nAvailable representations: {OFFERED}{streams}");
        return Err(ApiError::not_acceptable(words).with_empty_details());
    }
    for range in &ranges {
        let (Some(encoding), Some(form)) = (range.encoding(), range.form()) else { continue };
        if (kind == Kind::Plain && form != Form::Whole) || (kind == Kind::Watch && encoding == Encoding::Yaml) {
            continue;
        }
        let asked = range.parameters.iter().find(|(name, _)| *name == "as").map_or("", |(_, value)| *value);
        let go = || resource.map(Resource::go_type).unwrap_or_default();
        return match (kind, asked) {
            (Kind::Object, "PartialObjectMetadataList") => Err(ApiError::not_acceptable(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{})",
                go()
            ))),
            (Kind::List, "PartialObjectMetadata") => Err(ApiError::not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{}List)",
                go()
            ))),
            _ => Ok((form, encoding)),
        };
    }
    let offered = if kind == Kind::Watch { STREAMED } else { OFFERED };
    Err(ApiError::not_acceptable(format!("only the following media types are accepted: {offered}")))
}

/// Which of its two forms a discovery document is wanted in: aggregated or not. Errors: 406.
pub fn discovery(accept: &str) -> Result<(bool, Encoding), ApiError> {
    let aggregated = |range: &Range<'_>| {
        range.kind == "application/json"
            && discovery::AGGREGATED
                .split(';')
                .skip(1)
                .all(|part| part.split_once('=').is_some_and(|wanted| range.parameters.contains(&wanted)))
    };
    for range in ranges(accept) {
        if aggregated(&range) {
            return Ok((true, Encoding::Json));
        }
        if let (Some(encoding), Some(Form::Whole)) = (range.encoding(), range.form()) {
            return Ok((false, encoding));
        }
    }
    negotiate(accept, Kind::Plain, None).map(|(_, encoding)| (false, encoding))
}

/// Whether plain JSON will do, whatever else is said about it: all that the version and OpenAPI documents have.
/// Errors: 406.
pub fn json_only(accept: &str) -> Result<(), ApiError> {
    let will_do = |range: &Range<'_>| ["*/*", "application/json"].contains(&range.kind);
    if accept.trim().is_empty() || ranges(accept).iter().any(will_do) {
        return Ok(());
    }
    let words = "406: Not Acceptable\n\nAvailable representations: application/json";
    Err(ApiError::not_acceptable(words).with_empty_details())
}

/// In which encoding a refusal is written: what the client asked for first of what is offered.
pub fn of_refusal(accept: &str) -> Encoding {
    ranges(accept).iter().find_map(Range::encoding).unwrap_or(Encoding::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(accept: &str) -> Option<(Form, Encoding)> {
        negotiate(accept, Kind::Object, None).ok()
    }

    #[test]
    fn the_first_offered_form_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(object(table), Some((Form::Table, Encoding::Json)));
        let newer = "application/json;as=Table;v=v9;g=meta.k8s.io,application/json";
        assert_eq!(object(newer), Some((Form::Whole, Encoding::Json)));
        assert_eq!(object("application/vnd.kubernetes.protobuf,application/json"), Some((Form::Whole, Encoding::Json)));
        assert_eq!(object("application/yaml;q=0.1, application/json;q=0.9"), Some((Form::Whole, Encoding::Json)));
        assert_eq!(object("application/yaml"), Some((Form::Whole, Encoding::Yaml)));
        assert_eq!(object(""), Some((Form::Whole, Encoding::Json)));
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for accept in ["text/html", "application/*", "application/json;as=Table;v=v9;g=meta.k8s.io", "nonsense"] {
            assert_eq!(object(accept), None, "{accept}");
        }
        assert!(negotiate("application/yaml", Kind::Watch, None).is_err());
        assert!(negotiate("application/json;as=Table;v=v1;g=meta.k8s.io", Kind::Plain, None).is_err());
    }

    #[test]
    fn discovery_is_aggregated_for_who_asks_for_the_version_that_is_there() {
        let both = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(both).ok(), Some((true, Encoding::Json)));
        let older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(older).ok(), Some((false, Encoding::Json)));
        let only_older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert!(discovery(only_older).is_err());
    }
}
