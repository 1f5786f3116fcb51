//! Who is asking and how they came, through so many trusted proxies. Pure.
//!
//! Only `X-Forwarded-For` and `X-Forwarded-Proto` are read, by exactly these names, and only from proxies that are
//! trusted. `X-Forwarded-Host`, `Forwarded`, `X-Real-IP`, `CF-Connecting-IP` and their like are never read: every one
//! of them passes some proxy as the visitor made it.
use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

/// Whose word is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Proxies in front of the program that each add one entry to `X-Forwarded-For`.
    pub count: u8,
    /// Where those proxies are; empty: whoever connects counts as one.
    pub networks: Vec<IpNet>,
}

impl Trust {
    fn knows(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether the headers of whoever is connected are believed at all.
    fn believes(&self, peer: IpAddr) -> bool {
        self.count > 0 && (self.networks.is_empty() || self.knows(peer))
    }

    /// The address that the outermost trusted proxy saw: as many entries from the right of `X-Forwarded-For` as there
    /// are proxies, or less far where an entry on the way is no proxy of ours. Without an entry that can be used, the
    /// peer itself.
    pub fn address(&self, headers: &HeaderMap, peer: SocketAddr) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if !self.believes(peer) {
            return peer;
        }
        let joined = lines(headers, "x-forwarded-for");
        let mut entries =
            joined.split(',').map(|entry| entry.trim().parse::<IpAddr>().ok().map(|a| a.to_canonical())).rev();
        let count = usize::from(self.count);
        if self.networks.is_empty() {
            return entries.nth(count - 1).flatten().unwrap_or(peer);
        }
        let mut client = peer;
        for entry in entries.take(count) {
            let Some(address) = entry else { break };
            client = address;
            if !self.knows(address) {
                break;
            }
        }
        client
    }

    /// Whether the visitor came by https, as the nearest proxy says.
    pub fn came_by_https(&self, headers: &HeaderMap, peer: SocketAddr) -> bool {
        let said = lines(headers, "x-forwarded-proto");
        let last = said.rsplit(',').next().unwrap_or_default().trim();
        self.believes(peer.ip().to_canonical()) && last.eq_ignore_ascii_case("https")
    }
}

/// Every line of that name, as one list.
fn lines(headers: &HeaderMap, name: &str) -> String {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    lines.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        for other in
            ["x-forwarded-host", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x_forwarded_for"]
        {
            headers.append(other, "6.6.6.6".parse().unwrap());
        }
        headers
    }

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn entries_count_from_the_right_and_forged_ones_do_not() {
        let seen = |lines: &[&str], count| {
            let trust = Trust { count, networks: Vec::new() };
            trust.address(&headers("x-forwarded-for", lines), peer("10.0.0.1")).to_string()
        };
        assert_eq!(seen(&["203.0.113.7"], 0), "10.0.0.1");
        assert_eq!(seen(&["1.1.1.1, 203.0.113.7"], 1), "203.0.113.7");
        assert_eq!(seen(&["1.1.1.1", "203.0.113.7, 192.0.2.1"], 2), "203.0.113.7");
        assert_eq!(seen(&["203.0.113.7"], 2), "10.0.0.1");
        assert_eq!(seen(&["garbage"], 1), "10.0.0.1");
        assert_eq!(seen(&[], 1), "10.0.0.1");
        assert_eq!(seen(&["::ffff:203.0.113.7"], 1), "203.0.113.7");
    }

    #[test]
    fn with_networks_only_proxies_in_them_are_believed() {
        let trust = Trust { count: 2, networks: crate::config::networks::parse("10.0.0.0/8,192.0.2.0/24").unwrap() };
        let seen =
            |lines: &[&str], from: &str| trust.address(&headers("x-forwarded-for", lines), peer(from)).to_string();
        // visitor, edge, proxy
        assert_eq!(seen(&["203.0.113.7, 192.0.2.1"], "10.0.0.1"), "203.0.113.7");
        // the edge was passed by: its place is taken by the visitor's own address
        assert_eq!(seen(&["6.6.6.6, 203.0.113.7"], "10.0.0.1"), "203.0.113.7");
        assert_eq!(seen(&["203.0.113.7"], "10.0.0.1"), "203.0.113.7");
        // the proxies were passed by
        assert_eq!(seen(&["6.6.6.6, 192.0.2.1"], "198.51.100.9"), "198.51.100.9");
        assert_eq!(seen(&["6.6.6.6, 192.0.2.1"], "::ffff:10.0.0.1"), "6.6.6.6");
        assert_eq!(seen(&["6.6.6.6, garbage"], "10.0.0.1"), "10.0.0.1");
        // never further than there are proxies
        assert_eq!(seen(&["6.6.6.6, 192.0.2.2, 192.0.2.1"], "10.0.0.1"), "192.0.2.2");
    }

    #[test]
    fn https_is_believed_of_trusted_proxies_only_and_the_nearest_one_counts() {
        let trust = |count, networks| Trust { count, networks: crate::config::networks::parse(networks).unwrap() };
        let https =
            |trust: Trust, lines: &[&str]| trust.came_by_https(&headers("x-forwarded-proto", lines), peer("10.0.0.1"));
        assert!(https(trust(1, ""), &["https"]));
        assert!(https(trust(1, "10.0.0.1"), &["http", "HTTPS"]));
        assert!(!https(trust(1, ""), &["https", "http"]));
        assert!(!https(trust(1, ""), &["https, http"]));
        assert!(!https(trust(1, ""), &[]));
        assert!(!https(trust(0, ""), &["https"]));
        assert!(!https(trust(1, "10.0.0.2"), &["https"]));
    }
}
