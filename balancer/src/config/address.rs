//! Addresses and ports as the configuration writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde_json::{Value, json};

use super::cursor::{Node, Text, closest};
use super::error::Errors;
use super::key::{Scalar, Shape};
use super::model::{Listen, PortRange, SourceNat};

/// `ADDRESS:PORT`, `ADDRESS:FIRST-LAST`, with `*` for any address.
pub(super) struct ListenAddress;

impl Shape for ListenAddress {
    fn schema(&self) -> Value {
        json!({ "type": "string", "examples": ["192.0.2.10:443", "192.0.2.10:8000-8099", "[2001:db8::10]:443", "*:443"] })
    }
}

impl Scalar for ListenAddress {
    type Out = Listen;

    fn expected(&self) -> (String, String) {
        (
            "an address with a port in quotes".to_owned(),
            "\"192.0.2.10:443\"".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<Listen> {
        let text = node.text(self, errors)?;
        let (host, port) = split(&text, ":443", errors)?;
        let address = if &text.value[host.clone()] == "*" {
            Some(None)
        } else {
            address(&text, &host, errors)
                .and_then(|address| usable(&text, &host, address, Use::Listen, errors))
                .map(Some)
        };
        let Some(port) = port else {
            errors
                .add(
                    &text.span,
                    format!("`{}` has no port", text.value.escape_debug()),
                )
                .help(format!("add one: \"{}:443\"", text.value.escape_debug()));
            return None;
        };
        let ports = ports(&text, &port, errors);
        Some(Listen {
            address: address?,
            ports: ports?,
        })
    }
}

/// `ADDRESS` or `ADDRESS:PORT` of a server.
pub(super) struct BackendAddress;

impl Shape for BackendAddress {
    fn schema(&self) -> Value {
        json!({ "type": "string", "examples": ["10.0.0.3:8443", "10.0.0.3", "[2001:db8::3]:8443", "[2001:db8::3]"] })
    }
}

impl Scalar for BackendAddress {
    type Out = (IpAddr, Option<u16>);

    fn expected(&self) -> (String, String) {
        (
            "an address in quotes".to_owned(),
            "\"10.0.0.3:8443\"".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<Self::Out> {
        let text = node.text(self, errors)?;
        let (host, port) = split(&text, "", errors)?;
        let address = if &text.value[host.clone()] == "*" {
            errors
                .add(
                    &text.part(&host),
                    "a backend needs an address of its own, `*` is none",
                )
                .help("write the server's address, for example \"10.0.0.3:8443\"");
            None
        } else {
            address(&text, &host, errors)
                .and_then(|address| usable(&text, &host, address, Use::Backend, errors))
        };
        let port = match port {
            None => Some(None),
            Some(place) if text.value[place.clone()].contains('-') => {
                errors
                    .add(&text.part(&place), "a backend has one port, not a range")
                    .help("leave the port out to keep the port the packet came to");
                None
            }
            Some(place) => port_number(&text, &place, errors).map(Some),
        };
        Some((address?, port?))
    }
}

/// `masquerade`, `none` or an address.
pub(super) struct SourceAddress;

impl Shape for SourceAddress {
    fn schema(&self) -> Value {
        json!({ "type": "string", "examples": ["masquerade", "none", "192.0.2.10", "2001:db8::10"] })
    }
}

impl Scalar for SourceAddress {
    type Out = SourceNat;

    fn expected(&self) -> (String, String) {
        (
            "\"masquerade\", \"none\" or an address in quotes".to_owned(),
            "\"masquerade\"".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<SourceNat> {
        let text = node.text(self, errors)?;
        let whole = 0..text.value.len();
        match text.value {
            "masquerade" => return Some(SourceNat::Masquerade),
            "none" => return Some(SourceNat::None),
            other => {
                if let Ok(address) = other.parse() {
                    return usable(&text, &whole, address, Use::Source, errors)
                        .map(SourceNat::Address);
                }
            }
        }
        let help = match closest(text.value, ["masquerade", "none"].into_iter()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "use \"masquerade\", \"none\" or an address of the box without a port, such as \"192.0.2.10\"".to_owned(),
        };
        let shown = text.value.escape_debug();
        errors
            .add(
                &text.span,
                format!("`{shown}` is neither `masquerade` nor `none` nor an address"),
            )
            .help(help);
        None
    }
}

/// `FIRST-LAST` or one port.
pub(super) struct Ports {
    /// The lowest port that may be in it, and why.
    pub(super) floor: (u16, &'static str),
}

impl Shape for Ports {
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+(-[0-9]+)?$" })
    }
}

impl Scalar for Ports {
    type Out = PortRange;

    fn expected(&self) -> (String, String) {
        (
            "a range of ports in quotes".to_owned(),
            "\"1024-32767\"".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<PortRange> {
        let text = node.text(self, errors)?;
        let ports = ports(&text, &(0..text.value.len()), errors)?;
        let (floor, why) = self.floor;
        if ports.first < floor {
            errors
                .add(&text.span, why)
                .help(format!("begin at {floor} or above"));
            return None;
        }
        Some(ports)
    }
}

/// What an address is for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Listen,
    Backend,
    Source,
}

/// Whether an address can be used so; if not, an error is added.
fn usable(
    text: &Text<'_>,
    place: &Range<usize>,
    address: IpAddr,
    purpose: Use,
    errors: &mut Errors,
) -> Option<IpAddr> {
    let mapped = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    let (problem, mend) = if let Some(v4) = mapped {
        (
            "an IPv4 address written as IPv6".to_owned(),
            format!("write {v4}"),
        )
    } else {
        let class = match address {
            a if a.is_unspecified() => "the unspecified address",
            a if a.is_multicast() => "a multicast address",
            IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
            a if a.is_loopback() && purpose != Use::Listen => "a loopback address",
            _ => return Some(address),
        };
        let mend = match (purpose, address.is_unspecified()) {
            (Use::Listen, true) => "for any address write `*`, as in \"*:443\"",
            (Use::Listen, false) => "a service listens on a unicast address, or on any with `*`",
            (Use::Backend, _) if address.is_loopback() => {
                "packets cannot leave for a loopback address; a server on this box is not supported yet"
            }
            (Use::Backend, _) => "write the server's unicast address",
            (Use::Source, _) => "write a unicast address of the box, or \"masquerade\"",
        };
        (class.to_owned(), mend.to_owned())
    };
    errors
        .add(&text.part(place), format!("`{address}` is {problem}"))
        .help(mend);
    None
}

/// Splits `ADDRESS`, `ADDRESS:PORTS`, `[ADDRESS]` or `[ADDRESS]:PORTS`. `example` is the port a help shows.
fn split(
    text: &Text<'_>,
    example: &str,
    errors: &mut Errors,
) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let value = text.value;
    let end = value.len();
    if value.starts_with('[') {
        let Some(close) = value.find(']') else {
            errors
                .add(
                    &text.span,
                    format!("`{}` has no closing bracket", value.escape_debug()),
                )
                .help(format!("write \"[2001:db8::10]{example}\""));
            return None;
        };
        return match &value[close + 1..] {
            "" => Some((1..close, None)),
            rest if rest.starts_with(':') => Some((1..close, Some(close + 2..end))),
            _ => {
                errors
                    .add(
                        &text.part(&(close + 1..end)),
                        "after the bracket only `:` and a port can follow",
                    )
                    .help(format!("write \"{}:443\"", value[..=close].escape_debug()));
                None
            }
        };
    }
    match value
        .match_indices(':')
        .map(|(at, _)| at)
        .collect::<Vec<_>>()[..]
    {
        [] => Some((0..end, None)),
        [colon] => Some((0..colon, Some(colon + 1..end))),
        _ => {
            let help = match value.parse::<Ipv6Addr>() {
                Ok(address) => format!("write \"[{address}]{example}\""),
                Err(_) => "write it as in \"[2001:db8::10]:443\"".to_owned(),
            };
            errors
                .add(
                    &text.span,
                    format!(
                        "`{}`: an IPv6 address stands in brackets here",
                        value.escape_debug()
                    ),
                )
                .help(help);
            None
        }
    }
}

fn address(text: &Text<'_>, place: &Range<usize>, errors: &mut Errors) -> Option<IpAddr> {
    let shown = &text.value[place.clone()];
    let bracketed = place.start > 0;
    match shown.parse::<IpAddr>() {
        Ok(address) if address.is_ipv6() == bracketed => return Some(address),
        Ok(_) => {
            errors
                .add(
                    &text.part(place),
                    format!("`{shown}` is an IPv4 address and stands in brackets"),
                )
                .help(format!("write \"{}\"", text.value.replace(['[', ']'], "")));
            return None;
        }
        Err(_) => {}
    }
    if shown.is_empty() {
        errors
            .add(&text.part(place), "the address is missing")
            .help("an address stands before the port, as in \"192.0.2.10:443\"");
        return None;
    }
    let help = if shown.contains('/') {
        "one address is wanted, not a network: remove `/` and what follows"
    } else if shown.contains(|c: char| c.is_ascii_alphabetic()) && !bracketed {
        "host names are not looked up: write the address, as in \"192.0.2.10:443\""
    } else {
        "an address looks like 192.0.2.10 or [2001:db8::10]"
    };
    errors
        .add(
            &text.part(place),
            format!("`{}` is not an IP address", shown.escape_debug()),
        )
        .help(help);
    None
}

fn ports(text: &Text<'_>, place: &Range<usize>, errors: &mut Errors) -> Option<PortRange> {
    let value = &text.value[place.clone()];
    let Some(dash) = value.find('-').map(|at| place.start + at) else {
        let port = port_number(text, place, errors)?;
        return Some(PortRange {
            first: port,
            last: port,
        });
    };
    let first = port_number(text, &(place.start..dash), errors);
    let last = port_number(text, &(dash + 1..place.end), errors);
    let (first, last) = (first?, last?);
    if first > last {
        errors
            .add(
                &text.part(place),
                format!("the range {first}-{last} is reversed"),
            )
            .help(format!("write {last}-{first}"));
        return None;
    }
    Some(PortRange { first, last })
}

fn port_number(text: &Text<'_>, place: &Range<usize>, errors: &mut Errors) -> Option<u16> {
    let digits = &text.value[place.clone()];
    let shown = digits.escape_debug();
    let problem = if digits.is_empty() {
        "a port is missing".to_owned()
    } else if !digits.bytes().all(|b| b.is_ascii_digit()) {
        format!("`{shown}` is not a port number")
    } else {
        match digits.parse() {
            Ok(0) => "port 0 cannot be used".to_owned(),
            Ok(port) => return Some(port),
            Err(_) => format!("port {shown} does not exist"),
        }
    };
    errors
        .add(&text.part(place), problem)
        .help("ports are numbers from 1 to 65535");
    None
}
