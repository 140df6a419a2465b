//! Who sent a callback, and whether that is an address one may come from: pure.
//!
//! Promises that only a proxy that is trusted may speak for others, and that what cannot be read counts
//! as nobody. Which addresses are allowed is the configuration's.

use std::fmt;
use std::net::IpAddr;

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address. Bits behind the prefix must be zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text.parse().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let cidr = Self { address, bits: bits.unwrap_or(most) };
        let exact = cidr.bits <= most && number(address) == number(address) & cidr.mask();
        exact.then_some(cidr)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && number(address) & self.mask() == number(self.address)
    }

    /// Ones where bits count, in the form of [`number`].
    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0)
    }
}

/// The address's bits, the first one highest.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Whose word counts for where a request comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Networks callbacks may come from; none: any.
    pub allow: Vec<Cidr>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted: Vec<Cidr>,
}

impl Sources {
    /// Whether a request from `peer` with these `X-Forwarded-For` values (in the order they came) may be
    /// taken.
    #[must_use]
    pub fn allows(&self, peer: Option<IpAddr>, forwarded: &[&str]) -> bool {
        if self.allow.is_empty() {
            return true;
        }
        let Some(sender) = peer.and_then(|peer| self.sender(peer, forwarded)) else { return false };
        self.allow.iter().any(|network| network.contains(sender))
    }

    /// Whether a connection from `peer` can bring anything that may be taken: its own, or that of whom it
    /// is trusted to speak for.
    #[must_use]
    pub fn may_connect(&self, peer: IpAddr) -> bool {
        let is_in = |networks: &[Cidr]| networks.iter().any(|network| network.contains(peer));
        self.allow.is_empty() || is_in(&self.allow) || is_in(&self.trusted)
    }

    /// The last address before the proxies we trust: each of them has added whom it had it from.
    fn sender(&self, peer: IpAddr, forwarded: &[&str]) -> Option<IpAddr> {
        let trusted = |address: IpAddr| self.trusted.iter().any(|network| network.contains(address));
        let mut sender = peer;
        let mut hops = forwarded.iter().rev().flat_map(|line| line.rsplit(','));
        while trusted(sender) {
            match hops.next() {
                Some(hop) => sender = hop.trim().parse().ok()?,
                None => break,
            }
        }
        Some(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| Cidr::parse(text).unwrap()).collect()
    }

    #[test]
    fn networks_are_read_and_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "203.0.113.7/32", "2001:db8::/32", "::/0"] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Cidr::parse("203.0.113.7").unwrap().to_string(), "203.0.113.7/32");
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "host/8", "::/129", "10.0.0.0/8/8"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_in_its_networks_only() {
        let contains = |network: &str, address: &str| Cidr::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"), "IPv4 over an IPv6 socket");
        assert!(contains("2001:db8::/32", "2001:db8:1::5") && !contains("2001:db8::/32", "2001:db9::"));
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let sources = Sources { allow: networks(&["203.0.113.0/24"]), trusted: networks(&["10.0.0.0/8"]) };
        let allows = |peer: &str, forwarded: &[&str]| sources.allows(Some(peer.parse().unwrap()), forwarded);
        let connects = |peer: &str| sources.may_connect(peer.parse().unwrap());
        assert!(connects("203.0.113.7") && connects("10.0.0.1") && connects("::ffff:10.0.0.1"));
        assert!(!connects("198.51.100.1") && !connects("::1"));
        assert!(Sources::default().may_connect("::1".parse().unwrap()), "no list: anybody");
        assert!(allows("203.0.113.7", &[]));
        assert!(!allows("198.51.100.1", &["203.0.113.7"]), "nobody asked it");
        assert!(allows("10.0.0.1", &["203.0.113.7"]));
        assert!(allows("10.0.0.1", &["6.6.6.6, 203.0.113.7", "10.0.0.2"]));
        assert!(!allows("10.0.0.1", &["203.0.113.7, 6.6.6.6"]), "what a client made up stands further left");
        assert!(!allows("10.0.0.1", &["rubbish"]) && !allows("10.0.0.1", &[]));
        assert!(!sources.allows(None, &[]));
        assert!(Sources::default().allows(None, &[]));
    }
}
