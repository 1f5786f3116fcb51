//! The formats of texts that Kubernetes checks in custom resources. Pure.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Formats told by a pattern.
static PATTERNS: LazyLock<Vec<(&str, Option<Regex>)>> = LazyLock::new(|| {
    let letters = r"a-zA-Z0-9\p{S}\p{L}";
    let hostname = format!(
        r"^([{letters}]((-?[{letters}]{{0,62}})?)|([{letters}](([{letters}-]{{0,61}}[{letters}])?)(\.)){{1,}}([a-zA-Z\p{{L}}]){{2,63}})$"
    );
    let uuid =
        |third: &str, fourth: &str| format!("(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{third}-?{fourth}-?[0-9a-f]{{12}}$");
    let any = "[0-9a-f]{4}";
    let part = r"([01]?\d?\d|2[0-4]\d|25[0-5])";
    let channel = r"(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])";
    let all = [
        ("hostname", hostname),
        ("ipv4", format!(r"^{part}\.{part}\.{part}\.{part}$")),
        ("uuid", uuid(any, any)),
        ("uuid3", uuid("3[0-9a-f]{3}", any)),
        ("uuid4", uuid("4[0-9a-f]{3}", "[89ab][0-9a-f]{3}")),
        ("uuid5", uuid("5[0-9a-f]{3}", "[89ab][0-9a-f]{3}")),
        ("byte", "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})?$".to_owned()),
        ("mac", "(?i)^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$|^([0-9a-f]{4}\\.){2}[0-9a-f]{4}$".to_owned()),
        ("hexcolor", "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$".to_owned()),
        ("rgbcolor", format!(r"^rgb\(\s*{channel}\s*,\s*{channel}\s*,\s*{channel}\s*\)$")),
        ("bsonobjectid", "^[0-9a-fA-F]{24}$".to_owned()),
        ("duration", r"^(\d+(\.\d+)?\s*(ns|us|µs|ms|s|m|h|d|w|nano(second)?s?|micro(second)?s?|milli(second)?s?|sec(ond)?s?|min(ute)?s?|hours?|hrs?|days?|weeks?|wks?)\s*)+$".to_owned()),
    ];
    all.into_iter().map(|(name, pattern)| (name, Regex::new(&pattern).ok())).collect()
});

/// Whether a text has a format; formats that are not known fit everything.
pub fn fits(format: &str, text: &str) -> bool {
    // Kubernetes reads names of formats without their dashes.
    let format = format.replace('-', "");
    if let Some((_, Some(pattern))) = PATTERNS.iter().find(|(name, _)| *name == format) {
        return pattern.is_match(text) && (format != "hostname" || fits_hostname(text));
    }
    match format.as_str() {
        "datetime" => text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => fits_cidr(text),
        "uri" => fits_uri(text),
        "email" => fits_email(text),
        "isbn" | "isbn10" | "isbn13" => fits_isbn(&format, text),
        _ => true,
    }
}

fn fits_hostname(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn fits_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) if address.parse::<Ipv4Addr>().is_ok() => 32,
        Ok(IpAddr::V6(_)) => 128,
        _ => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// A URI with a scheme, or an absolute path.
fn fits_uri(text: &str) -> bool {
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, _)) = text.split_once(':') else { return false };
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    named && !text.chars().any(char::is_control) && !text.contains(' ') && url::Url::parse(text).is_ok()
}

fn fits_email(text: &str) -> bool {
    let address = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((_, address)) => address,
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let odd = |c: char| c.is_whitespace() || "<>()[],;:\\\"@".contains(c);
    !local.is_empty() && !domain.is_empty() && !local.contains(odd) && !domain.contains(odd)
}

fn fits_isbn(format: &str, text: &str) -> bool {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let value = |c: char| if c == 'X' { Some(10) } else { c.to_digit(10) };
    let Some(values) = digits.chars().map(value).collect::<Option<Vec<u32>>>() else { return false };
    match values.len() {
        10 if format != "isbn13" => values.iter().zip(1..).map(|(value, weight)| value * weight).sum::<u32>() % 11 == 0,
        13 if format != "isbn10" => {
            values.iter().zip([1, 3].into_iter().cycle()).map(|(value, weight)| value * weight).sum::<u32>() % 10 == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As measured on a real API server.
    #[test]
    fn formats_are_as_strict_as_those_of_kubernetes() {
        for (format, good, bad) in [
            ("date-time", vec!["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.123+01:00"], vec!["2020", "x"]),
            ("date", vec!["2020-01-01"], vec!["2020-1-1", "x", "2020-13-01"]),
            ("ipv4", vec!["1.2.3.4", "01.2.3.4"], vec!["1.2.3", "::1"]),
            ("ipv6", vec!["::1"], vec!["1.2.3.4", "x"]),
            ("uri", vec!["http://x", "/x", "x:y"], vec!["x", "http://[", "", "a b"]),
            ("uuid4", vec!["123e4567-e89b-42d3-a456-426614174000"], vec!["123e4567-e89b-12d3-a456-426614174000"]),
            ("email", vec!["a@b.c", "A <a@b.c>"], vec!["a", "a@", "@b"]),
            ("byte", vec!["YQ=="], vec!["!", "YQ", "YQ=", "a"]),
            ("hostname", vec!["localhost", "a.bc"], vec!["a.b", "a..b", "-a", "a b", "", "a_b", "xn--a", "a."]),
            ("cidr", vec!["1.2.3.0/24"], vec!["1.2.3.4", "x"]),
            ("mac", vec!["01:23:45:67:89:ab"], vec!["x"]),
            ("duration", vec!["1s", "1h30m", "1 day", "5 minutes"], vec!["x", "1", "1y"]),
            ("hexcolor", vec!["#fff", "#FFFFFF", "fff"], vec!["#ff", "red"]),
            ("rgbcolor", vec!["rgb(1,2,3)"], vec!["rgb(256,1,1)", "x"]),
            ("isbn", vec!["0321751043"], vec!["x"]),
            ("unknown", vec!["x"], vec![]),
        ] {
            assert!(good.iter().all(|text| fits(format, text)), "{format} {good:?}");
            assert!(bad.iter().all(|text| !fits(format, text)), "{format} {bad:?}");
        }
        assert!(["", "YQ==", "YWI=", "YWJj"].iter().all(|text| fits("byte", text)));
    }
}
