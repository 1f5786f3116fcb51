//! Who is asking, through so many trusted proxies. Pure.
use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

/// The address that the outermost trusted proxy saw: that many entries from the right of `X-Forwarded-For`.
/// Fewer entries, or anything that is no address, and the peer itself counts.
pub fn address(headers: &HeaderMap, peer: SocketAddr, trusted: u8) -> IpAddr {
    let peer = peer.ip().to_canonical();
    if trusted == 0 {
        return peer;
    }
    let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    let joined = lines.join(",");
    let mut entries = joined.split(',').map(str::trim).rev();
    let entry = entries.nth(usize::from(trusted) - 1).and_then(|entry| entry.parse::<IpAddr>().ok());
    entry.map_or(peer, |address| address.to_canonical())
}

/// Whether the visitor came by https, as the nearest proxy says.
pub fn came_by_https(headers: &HeaderMap) -> bool {
    let said = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    said.is_some_and(|said| said.rsplit(',').next().unwrap_or_default().trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_count_from_the_right_and_forged_ones_do_not() {
        let peer: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let seen = |lines: &[&str], trusted| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            address(&headers, peer, trusted).to_string()
        };
        assert_eq!(seen(&["203.0.113.7"], 0), "10.0.0.1");
        assert_eq!(seen(&["1.1.1.1, 203.0.113.7"], 1), "203.0.113.7");
        assert_eq!(seen(&["1.1.1.1", "203.0.113.7, 192.0.2.1"], 2), "203.0.113.7");
        assert_eq!(seen(&["203.0.113.7"], 2), "10.0.0.1");
        assert_eq!(seen(&["garbage"], 1), "10.0.0.1");
        assert_eq!(seen(&["::ffff:203.0.113.7"], 1), "203.0.113.7");
    }
}
