//! The scenario: what is sent, as a TOML file says it.
//!
//! The file has no tables, only `key = value`, so that shell scripts can read it too.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::time::Duration;

use macaddr::MacAddr6;
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;
use serde_spanned::Spanned;
use thiserror::Error;

use crate::plan::{WORDS_V4, WORDS_V6};
use crate::range::{AddressRange, PortRange};

/// The largest frame: 1500 bytes behind the Ethernet header.
const LARGEST: u16 = 1514;
/// The smallest that Ethernet knows, without its checksum.
const SMALLEST: u16 = 60;
/// The same with IPv6: what the headers are written as.
const SMALLEST_V6: u16 = WORDS_V6 as u16 * 8;

/// What stands before an IPv4 packet's data.
const HEADERS_V4: u16 = 34;

const _: () = assert!(WORDS_V4 * 8 <= SMALLEST as usize);

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl TryFrom<u8> for Family {
    type Error = &'static str;

    fn try_from(version: u8) -> Result<Self, Self::Error> {
        match version {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            _ => Err("the family is 4 or 6"),
        }
    }
}

/// The transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a flow's frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// TCP: ACK. The flows come again and again.
    Established,
    /// TCP: SYN. Each frame is of a flow that has had none; when there is no other, it ends.
    New,
}

/// Which flow comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// They take turns.
    #[default]
    RoundRobin,
    /// Any.
    Random,
}

/// Which part of a longer packet each frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fragment {
    /// The first one.
    First,
    /// One behind it.
    Later,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// The version of IP.
    pub family: Family,
    /// The transport.
    pub protocol: Protocol,
    /// What a flow's frames are.
    pub mode: Mode,
    /// Which flow comes next.
    pub order: Order,
    /// Which part of a longer IPv4 packet frames are; `None`: they are whole ones.
    pub fragment: Option<Fragment>,
    /// Where frames come from; the interface's own address where there is none.
    pub source_mac: Option<[u8; 6]>,
    /// Where frames go.
    pub destination_mac: [u8; 6],
    /// Where packets come from.
    pub source: AddressRange,
    /// Where packets go.
    pub destination: IpAddr,
    /// The ports that they come from. Flows use up the ports of an address, then those of the next.
    pub source_ports: PortRange,
    /// The port that they go to.
    pub destination_port: u16,
    /// The bytes of a frame, without its checksum.
    pub frame_size: u16,
    /// How many flows there are.
    pub flows: u32,
    /// Packets a second; `None`: as many as can be.
    pub rate: Option<NonZeroU64>,
    /// How many packets are sent at most.
    pub count: Option<NonZeroU64>,
    /// How long packets are sent at most. It or `count` is there.
    pub duration: Option<Duration>,
}

impl Scenario {
    /// Reads a scenario. `file` is the file's name as it shall stand in an error.
    ///
    /// # Errors
    /// The first thing that is wrong with it, and where.
    pub fn parse(file: &str, text: &str) -> Result<Self, Box<ScenarioError>> {
        toml::from_str::<Document>(text)
            .map_err(|error| Wrong {
                message: error.message().to_owned(),
                span: error.span().unwrap_or_default(),
                help: None,
            })
            .and_then(Document::check)
            .map_err(|wrong| {
                Box::new(ScenarioError {
                    message: wrong.message,
                    help: wrong.help,
                    span: wrong.span.into(),
                    source_code: NamedSource::new(file, text.to_owned()).with_language("toml"),
                })
            })
    }
}

/// What is wrong with a scenario, and where.
#[derive(Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct ScenarioError {
    message: String,
    #[help]
    help: Option<&'static str>,
    #[label]
    span: SourceSpan,
    #[source_code]
    source_code: NamedSource<String>,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    family: Family,
    protocol: Protocol,
    mode: Mode,
    #[serde(default)]
    order: Option<Spanned<Order>>,
    fragment: Option<Spanned<Fragment>>,
    source_mac: Option<MacText>,
    destination_mac: MacText,
    source: Spanned<AddressRange>,
    destination: Spanned<IpAddr>,
    source_ports: PortRange,
    destination_port: NonZeroU16,
    frame_size: Spanned<u16>,
    flows: Option<Spanned<NonZeroU32>>,
    #[serde(default)]
    rate: u64,
    count: Option<NonZeroU64>,
    duration: Option<DurationText>,
}

/// An Ethernet address as text: `02:00:00:00:00:02`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct MacText(MacAddr6);

impl TryFrom<String> for MacText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("`{text}` is no Ethernet address"))
    }
}

/// A time as text: `10s`, `1m 30s`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct DurationText(Duration);

impl TryFrom<String> for DurationText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match humantime::parse_duration(&text) {
            Ok(duration) if !duration.is_zero() => Ok(Self(duration)),
            Ok(_) => Err("the duration is nothing".to_owned()),
            Err(error) => Err(format!("`{text}` is no duration such as 10s: {error}")),
        }
    }
}

struct Wrong {
    message: String,
    span: Range<usize>,
    help: Option<&'static str>,
}

impl Document {
    /// The rules about several keys.
    fn check(self) -> Result<Scenario, Wrong> {
        let wrong = |message: String, span: Range<usize>, help| {
            Err(Wrong {
                message,
                span,
                help,
            })
        };
        let is_v4 = self.family == Family::V4;
        for (key, address, span) in [
            ("source", self.source.get_ref().first, self.source.span()),
            (
                "destination",
                *self.destination.get_ref(),
                self.destination.span(),
            ),
        ] {
            if address.is_ipv4() != is_v4 {
                let message = format!("`{key}` is not of the scenario's family");
                return wrong(message, span, None);
            }
        }
        let smallest = if is_v4 { SMALLEST } else { SMALLEST_V6 };
        let frame_size = *self.frame_size.get_ref();
        if !(smallest..=LARGEST).contains(&frame_size) {
            return wrong(
                format!("a frame has {smallest} to {LARGEST} bytes"),
                self.frame_size.span(),
                Some(
                    "the size is counted from the Ethernet addresses on, without the frame's checksum",
                ),
            );
        }
        let order = self
            .order
            .as_ref()
            .map_or_else(Order::default, |order| *order.get_ref());
        if let Some(order) = &self.order
            && self.mode == Mode::New
            && *order.get_ref() == Order::Random
        {
            return wrong(
                "chance would take flows twice".to_owned(),
                order.span(),
                Some("mode `new` has `order = \"round-robin\"`"),
            );
        }
        if let Some(fragment) = &self.fragment
            && (!is_v4 || !(frame_size - HEADERS_V4).is_multiple_of(8))
        {
            return wrong(
                format!("a fragment is one of IPv4, of {HEADERS_V4} bytes and a multiple of 8"),
                fragment.span(),
                Some("such as `frame_size = 66`"),
            );
        }
        let source = *self.source.get_ref();
        let most = source.count() * u64::from(self.source_ports.count());
        let flows = match (&self.flows, self.mode) {
            (Some(flows), _) => {
                if u64::from(flows.get_ref().get()) > most {
                    return wrong(
                        format!("the addresses and ports are enough for {most} flows"),
                        flows.span(),
                        Some("widen `source` or `source_ports`"),
                    );
                }
                flows.get_ref().get()
            }
            (None, Mode::New) => u32::try_from(most).unwrap_or(u32::MAX),
            (None, Mode::Established) => 1,
        };
        if self.count.is_none() && self.duration.is_none() {
            return wrong(
                "there is no bound".to_owned(),
                0..0,
                Some("give `count = 100000`, `duration = \"10s\"`, or both"),
            );
        }
        Ok(Scenario {
            name: self.name,
            family: self.family,
            protocol: self.protocol,
            mode: self.mode,
            order,
            fragment: self.fragment.map(Spanned::into_inner),
            source_mac: self.source_mac.map(|MacText(mac)| mac.into_array()),
            destination_mac: self.destination_mac.0.into_array(),
            source,
            destination: *self.destination.get_ref(),
            source_ports: self.source_ports,
            destination_port: self.destination_port.get(),
            frame_size,
            flows,
            rate: NonZeroU64::new(self.rate),
            count: self.count,
            duration: self.duration.map(|DurationText(duration)| duration),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "established"
family = 4
protocol = "tcp"
mode = "established"
destination_mac = "02:00:00:00:00:02"
source = "198.18.0.1-198.18.0.4"
destination = "192.0.2.10"
source_ports = "1024-2023"
destination_port = 80
frame_size = 60
flows = 1000
count = 100000
"#;

    fn changed(old: &str, new: &str) -> String {
        assert!(GOOD.contains(old), "{old}");
        GOOD.replace(old, new)
    }

    #[test]
    fn a_scenario_is_read() {
        let scenario = Scenario::parse("test.toml", GOOD).unwrap();
        assert_eq!(scenario.name, "established");
        assert_eq!(scenario.destination_mac, [2, 0, 0, 0, 0, 2]);
        assert_eq!((scenario.flows, scenario.frame_size), (1000, 60));
        assert_eq!(scenario.order, Order::RoundRobin);
        assert_eq!((scenario.rate, scenario.source_mac), (None, None));
        assert_eq!(scenario.count.map(NonZeroU64::get), Some(100_000));
        let timed = changed("count = 100000", "duration = \"1m 30s\"\nrate = 7");
        let scenario = Scenario::parse("test.toml", &timed).unwrap();
        assert_eq!(scenario.duration, Some(Duration::from_secs(90)));
        assert_eq!(scenario.rate.map(NonZeroU64::get), Some(7));
    }

    #[test]
    fn without_a_number_there_is_one_flow_or_every_flow() {
        let established = Scenario::parse("test.toml", &changed("flows = 1000", "")).unwrap();
        assert_eq!(established.flows, 1);
        let new = changed("flows = 1000", "").replace("mode = \"established\"", "mode = \"new\"");
        assert_eq!(Scenario::parse("test.toml", &new).unwrap().flows, 4000);
    }

    #[test]
    fn a_wrong_scenario_says_what_and_where() {
        let cases = [
            ("family = 4", "family = 5", "the family is 4 or 6", "5"),
            (
                "family = 4",
                "family = 6",
                "not of the scenario's family",
                "\"198.18.0.1-198.18.0.4\"",
            ),
            (
                "\"192.0.2.10\"",
                "\"::1\"",
                "`destination` is not of",
                "\"::1\"",
            ),
            (
                "frame_size = 60",
                "frame_size = 59",
                "60 to 1514 bytes",
                "59",
            ),
            (
                "frame_size = 60",
                "frame_size = 1515",
                "60 to 1514 bytes",
                "1515",
            ),
            (
                "flows = 1000",
                "flows = 4001",
                "enough for 4000 flows",
                "4001",
            ),
            ("flows = 1000", "flows = 0", "nonzero", "0"),
            (
                "flows = 1000",
                "flow = 1000",
                "unknown field `flow`",
                "flow",
            ),
            ("count = 100000", "", "there is no bound", ""),
            (
                "count = 100000",
                "duration = \"10\"",
                "no duration such as 10s",
                "\"10\"",
            ),
            ("\"tcp\"", "\"sctp\"", "unknown variant `sctp`", "\"sctp\""),
            (
                "02:00:00:00:00:02",
                "02:00",
                "`02:00` is no Ethernet address",
                "\"02:00\"",
            ),
            (
                "1024-2023",
                "2023-1024",
                "ends before it begins",
                "\"2023-1024\"",
            ),
            ("name = \"established\"", "", "missing field `name`", ""),
            (
                "flows = 1000",
                "fragment = \"later\"",
                "of 34 bytes and a multiple of 8",
                "\"later\"",
            ),
        ];
        for (old, new, message, place) in cases {
            let text = changed(old, new);
            let error = Scenario::parse("test.toml", &text).unwrap_err();
            assert!(error.to_string().contains(message), "{new}: {error}");
            let span = error.span.offset()..error.span.offset() + error.span.len();
            assert!(
                text[span.clone()].starts_with(place),
                "{new}: {:?}",
                &text[span]
            );
        }
    }

    #[test]
    fn chance_takes_no_new_flows() {
        let text = changed(
            "mode = \"established\"",
            "mode = \"new\"\norder = \"random\"",
        );
        let error = Scenario::parse("test.toml", &text).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}
