//! Networks by which trusted proxies are told.
use std::net::IpAddr;

use ipnet::IpNet;

/// Where Cloudflare's edge connects from, as published at <https://www.cloudflare.com/ips/>.
pub const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// Whether the address is one of Cloudflare's edge.
pub fn is_cloudflare(address: IpAddr) -> bool {
    CLOUDFLARE.iter().filter_map(|network| network.parse::<IpNet>().ok()).any(|network| network.contains(&address))
}

/// Addresses and networks joined by commas; the word `cloudflare` stands for all of [`CLOUDFLARE`]. The error is the
/// part that is neither.
pub fn parse(text: &str) -> Result<Vec<IpNet>, String> {
    let mut networks = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if part == "cloudflare" {
            networks.extend(CLOUDFLARE.iter().filter_map(|network| network.parse::<IpNet>().ok()));
            continue;
        }
        let one = part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        networks.push(one.map_err(|_: std::net::AddrParseError| part.to_owned())?);
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_and_cloudflare_are_read() {
        let networks = parse("127.0.0.1, 10.0.0.0/8,::1, cloudflare").unwrap();
        assert_eq!(networks.len(), 3 + CLOUDFLARE.len());
        assert!(networks[0].contains(&"127.0.0.1".parse::<std::net::IpAddr>().unwrap()));
        assert!(!networks[0].contains(&"127.0.0.2".parse::<std::net::IpAddr>().unwrap()));
        assert_eq!(parse("10.0.0.0/8,proxy").unwrap_err(), "proxy");
        assert_eq!(parse("").unwrap(), []);
        let edge = |text: &str| is_cloudflare(text.parse().unwrap());
        assert!(edge("104.16.0.1") && edge("2606:4700::1111") && !edge("192.0.2.1") && !edge("::1"));
    }
}
