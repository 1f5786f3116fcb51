//! Where a host name leads, for calls to hosts that other people choose: only public addresses may be asked, and
//! the address that was checked is the one that is connected to.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;

/// Longest wait for the resolver.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of one host that are tried.
const MOST: usize = 4;
/// Port of HTTPS.
const HTTPS: u16 = 443;
/// Longest list of addresses in a message.
const SHOWN: usize = 3;

/// Why a host cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("{0} does not exist in DNS")]
    NotFound(String),
    #[error("the resolver gave no answer for {0}")]
    NoAnswer(String),
    /// One of its addresses is not on the public Internet, so none is asked.
    #[error("{host} resolves to {addresses}, which is no public address")]
    NotPublic { host: String, addresses: String },
}

impl LookupError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NameNotFound",
            Self::NoAnswer(_) => "NameLookupFailed",
            Self::NotPublic { .. } => "PrivateAddress",
        }
    }
}

/// Tells where hosts that other people choose may be asked.
#[async_trait]
pub trait Names: Send + Sync + 'static {
    /// At least one address, each allowed, with the port to connect to.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, LookupError>;

    /// All addresses of the host with the port of HTTPS, also those that may not be asked: to compare machines, not to
    /// connect to.
    async fn everywhere(&self, host: &str) -> Result<Vec<SocketAddr>, LookupError> {
        self.addresses(host, HTTPS).await
    }
}

/// The machine's own resolver, for public addresses only.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublicNames;

#[async_trait]
impl Names for PublicNames {
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, LookupError> {
        public(host, found(host, port).await?)
    }

    async fn everywhere(&self, host: &str) -> Result<Vec<SocketAddr>, LookupError> {
        // What leads to this machine itself says nothing about where others are led; RFC 6761 says it of all such names.
        if host.ends_with(".localhost") {
            return Ok(Vec::new());
        }
        let mut addresses = found(host, HTTPS).await?;
        addresses.retain(|address| !address.ip().is_loopback());
        Ok(addresses)
    }
}

async fn found(host: &str, port: u16) -> Result<Vec<SocketAddr>, LookupError> {
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(failure(host, &error.to_string())),
        Err(_) => Err(LookupError::NoAnswer(host.to_owned())),
    }
}

/// The resolver's words, which is all that the operating system's interface gives: glibc's and musl's.
fn failure(host: &str, words: &str) -> LookupError {
    let said = ["not known", "No address associated", "does not resolve", "no usable address"];
    if said.iter().any(|text| words.contains(text)) {
        LookupError::NotFound(host.to_owned())
    } else {
        LookupError::NoAnswer(host.to_owned())
    }
}

/// The addresses, if all of them are public: a name that mixes both is up to something.
fn public(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, LookupError> {
    if found.is_empty() {
        return Err(LookupError::NotFound(host.to_owned()));
    }
    let mut hidden: Vec<String> =
        found.iter().filter(|address| !is_public(address.ip())).map(|address| address.ip().to_string()).collect();
    if hidden.is_empty() {
        return Ok(found.into_iter().take(MOST).collect());
    }
    hidden.truncate(SHOWN);
    Err(LookupError::NotPublic { host: host.to_owned(), addresses: hidden.join(", ") })
}

/// Whether an address is on the public Internet: not this machine, not its networks, not a cloud's metadata service.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = match (a, b, c) {
        // This network, private, loopback, link-local with the metadata services of most clouds, multicast and
        // reserved.
        (0 | 10 | 127 | 224..=255, ..) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Carrier-grade NAT, protocol assignments, documentation, relays, benchmarks.
        (100, 64..=127, _) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) => true,
        (198, 51, 100) | (203, 0, 113) => true,
        // Azure's host service, on an address that looks public.
        (168, 63, 129) => d == 16,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let [.., y, z] = address.segments();
    let embedded = || Ipv4Addr::from((u32::from(y) << 16) | u32::from(z));
    match (a, b) {
        // NAT64 carries an IPv4 address, and so do mapped ones.
        (0x64, 0xff9b) => address.segments()[2..6] == [0; 4] && is_public_v4(embedded()),
        (0, 0) => address.to_ipv4_mapped().is_some_and(is_public_v4),
        // Documentation, Teredo and its neighbours, 6to4.
        (0x2001, 0x0db8 | 0..=0x01ff) | (0x2002, _) | (0x3fff, 0..=0x0fff) => false,
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for text in ["1.1.1.1", "104.16.0.1", "172.32.0.1", "100.128.0.1", "168.63.129.17", "2606:4700::1111"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["64:ff9b::104.16.0.1", "::ffff:104.16.0.1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "::7f00:1",
            "fec0::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_name_with_one_private_address_is_not_asked_at_all() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 443);
        assert_eq!(public("a.example", vec![at("1.1.1.1")]).unwrap(), [at("1.1.1.1")]);
        let mixed = public("a.example", vec![at("1.1.1.1"), at("10.0.0.1")]).unwrap_err();
        assert_eq!(mixed.to_string(), "a.example resolves to 10.0.0.1, which is no public address");
        assert_eq!(public("a.example", Vec::new()).unwrap_err().reason(), "NameNotFound");
    }

    #[test]
    fn a_name_that_is_not_there_is_told_from_a_resolver_that_is_silent() {
        let reason = |words| failure("a.example", words).reason();
        assert_eq!(reason("failed to lookup address information: Name or service not known"), "NameNotFound");
        assert_eq!(reason("failed to lookup address information: Name does not resolve"), "NameNotFound");
        assert_eq!(
            reason("failed to lookup address information: Temporary failure in name resolution"),
            "NameLookupFailed"
        );
    }
}
