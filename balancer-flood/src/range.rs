//! Addresses and ports from one to another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::Deserialize;

/// One address, or all from one to another: `198.18.0.1`, `198.18.0.1-198.18.3.254`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    /// The first.
    pub first: IpAddr,
    /// The last, which differs from the first in its last four bytes only.
    pub last: IpAddr,
}

impl AddressRange {
    /// How many addresses these are.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(low(self.last)) - u64::from(low(self.first)) + 1
    }

    /// The last four bytes of the first.
    #[must_use]
    pub fn low(&self) -> u32 {
        low(self.first)
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = ends(text);
        let address = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| format!("`{text}` is no address"))
        };
        let (first, last) = (address(first)?, address(last)?);
        if high(first) != high(last) || first.is_ipv4() != last.is_ipv4() {
            return Err("the two ends differ in more than their last four bytes".to_owned());
        }
        if low(first) > low(last) {
            return Err("the range ends before it begins".to_owned());
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// One port, or all from one to another: `4000`, `1024-65535`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl PortRange {
    /// How many ports these are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = ends(text);
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("`{text}` is no port; they are 1 to 65535")),
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err("the range ends before it begins".to_owned());
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

fn ends(text: &str) -> (&str, &str) {
    text.split_once('-')
        .map_or((text, text), |(first, last)| (first.trim(), last.trim()))
}

fn low(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_bits(address),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address) as u32,
    }
}

fn high(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(address) => Ipv6Addr::to_bits(address) >> 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_with_both_ends() {
        for (text, count) in [
            ("198.18.0.1", 1),
            ("198.18.0.0-198.18.3.255", 1024),
            ("0.0.0.0-255.255.255.255", 1 << 32),
            ("2001:db8::1", 1),
            ("2001:db8::1 - 2001:db8::1:0", 0x1_0000),
        ] {
            assert_eq!(
                text.parse().map(|range: AddressRange| range.count()),
                Ok(count),
                "{text}"
            );
        }
        let ports: PortRange = "1024-65535".parse().unwrap();
        assert_eq!(
            (ports.first, ports.last, ports.count()),
            (1024, 65535, 64512)
        );
        assert_eq!("80".parse::<PortRange>().unwrap().count(), 1);
    }

    #[test]
    fn a_wrong_range_says_why() {
        for (text, why) in [
            ("198.18.0", "no address"),
            ("198.18.0.2-198.18.0.1", "ends before it begins"),
            ("198.18.0.2-::1", "more than their last four bytes"),
            ("2001:db8::1-2001:db9::1", "more than their last four bytes"),
        ] {
            let error = text.parse::<AddressRange>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for (text, why) in [
            ("0", "no port"),
            ("70000", "no port"),
            ("2-1", "ends before it begins"),
        ] {
            let error = text.parse::<PortRange>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
