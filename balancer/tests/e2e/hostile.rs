//! A thousand of each frame that nobody has reason to send: each is counted, none gets anywhere, and the daemon is none the
//! wiser.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray};
use balancer::datapath::raw::Record;
use balancer_common::abi::{Stats, map};
use balancer_common::verdict::{Drop, Pass, Verdict};
use balancer_lab::{MacAddress, RawPort, TcpEcho, UdpEcho, eventually};
use etherparse::PacketBuilder;

use crate::site::{PATIENCE, SOON, Shape, Site, greeting};
use crate::support::frame::checksum;

/// How many of each.
const COUNT: u16 = 1000;
/// How many are under way at a time: a veth holds 256.
const BURST: usize = 200;
/// By how much the daemon's resident memory may grow over all of it, in bytes.
const GROWTH: u64 = 1 << 20;

/// Where the network header begins, and the transport header behind IPv4 and IPv6 headers without options.
const IP: usize = 14;
const V4_END: usize = IP + 20;
const V6_END: usize = IP + 40;

/// The ends that are as they should be, of each family.
const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const SERVICE: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const PORT: u16 = 9;
/// The port that frames come from.
const FROM: u16 = 7000;

/// The protocol numbers of what follows an IPv6 header.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

const PAYLOAD: &[u8; 16] = b"sixteen  letters";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}
use Transport::{Tcp, Udp};

/// Frames from the client's link to the balancer.
struct Link {
    from: MacAddress,
    to: MacAddress,
}

impl Link {
    fn of(site: &Site) -> Self {
        let [from, to] = [&site.client, &site.balancer].map(|host| host.mac("eth0").unwrap());
        Self { from, to }
    }

    /// A frame between these addresses and ports: SYN or datagram.
    fn between(&self, transport: Transport, ends: [&str; 2], ports: [u16; 2]) -> Vec<u8> {
        let [source, destination] = ends.map(|text| text.parse::<IpAddr>().unwrap());
        let link = PacketBuilder::ethernet2(self.from.0, self.to.0);
        let ip = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                link.ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                link.ipv6(source.octets(), destination.octets(), 64)
            }
            _ => panic!("two families"),
        };
        let mut frame = Vec::new();
        let [from, to] = ports;
        match transport {
            Tcp => ip.tcp(from, to, 1, 1000).syn().write(&mut frame, PAYLOAD),
            Udp => ip.udp(from, to).write(&mut frame, PAYLOAD),
        }
        .unwrap();
        frame
    }

    fn v4(&self, transport: Transport) -> Vec<u8> {
        self.between(transport, [CLIENT[0], SERVICE[0]], [FROM, PORT])
    }

    fn v6(&self, transport: Transport) -> Vec<u8> {
        self.between(transport, [CLIENT[1], SERVICE[1]], [FROM, PORT])
    }

    /// A SYN to the service from another address.
    fn from(&self, source: &str) -> Vec<u8> {
        let family = usize::from(source.contains(':'));
        self.between(Tcp, [source, SERVICE[family]], [FROM, PORT])
    }

    /// A SYN to another address.
    fn to(&self, destination: &str) -> Vec<u8> {
        let family = usize::from(destination.contains(':'));
        self.between(Tcp, [CLIENT[family], destination], [FROM, PORT])
    }
}

pub fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame
}

fn set(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Makes the checksum of an IPv4 header right again, however long that says it is.
pub fn right_checksum(frame: &mut [u8]) {
    set(frame, IP + 10, 0);
    let end = IP + usize::from(frame[IP] & 15) * 4;
    let sum = checksum(&frame[IP..end.min(frame.len())]);
    set(frame, IP + 10, sum);
}

/// The same with an IPv4 total length or an IPv6 payload length that fits the frame.
fn right_length(frame: &mut [u8]) {
    if frame[IP] >> 4 == 4 {
        set(frame, IP + 2, (frame.len() - IP) as u16);
        right_checksum(frame);
    } else {
        set(frame, IP + 4, (frame.len() - V6_END) as u16);
    }
}

/// With IPv4 options.
fn options(mut frame: Vec<u8>, options: &[u8]) -> Vec<u8> {
    frame.splice(V4_END..V4_END, options.iter().copied());
    frame[IP] += (options.len() / 4) as u8;
    right_length(&mut frame);
    frame
}

/// With IPv6 extension headers; the first byte of each is set to what follows.
fn extensions(mut frame: Vec<u8>, headers: &[(u8, &[u8])]) -> Vec<u8> {
    for (number, bytes) in headers.iter().rev() {
        frame.splice(V6_END..V6_END, bytes.iter().copied());
        frame[V6_END] = frame[IP + 6];
        frame[IP + 6] = *number;
    }
    right_length(&mut frame);
    frame
}

/// With VLAN tags: Ethernet types.
fn tagged(mut frame: Vec<u8>, tags: &[u16]) -> Vec<u8> {
    for tag in tags.iter().rev() {
        let [a, b] = tag.to_be_bytes();
        frame.splice(12..12, [a, b, 0, 5]);
    }
    frame
}

/// Another protocol, with these bytes in the place of the transport header and what is behind it.
fn other(mut frame: Vec<u8>, protocol: u8, bytes: &[u8]) -> Vec<u8> {
    if frame[IP] >> 4 == 4 {
        frame.truncate(V4_END);
        frame[IP + 9] = protocol;
    } else {
        frame.truncate(V6_END);
        frame[IP + 6] = protocol;
    }
    frame.extend(bytes);
    right_length(&mut frame);
    frame
}

/// The fragment of a whole packet with these bytes of what is behind the network header; where that ends before, with zeros.
fn fragment(mut frame: Vec<u8>, start: u16, length: usize, more: bool) -> Vec<u8> {
    let end = if frame[IP] >> 4 == 4 { V4_END } else { V6_END };
    let behind = frame.split_off(end);
    let from = usize::from(start).min(behind.len());
    let piece = &behind[from..behind.len().min(from + length)];
    if end == V4_END {
        set(&mut frame, IP + 6, (start / 8) | (u16::from(more) << 13));
    } else {
        frame.extend([frame[IP + 6], 0]);
        frame.extend((start | u16::from(more)).to_be_bytes());
        frame.extend([0; 4]);
        frame[IP + 6] = FRAGMENT;
    }
    frame.extend(piece);
    frame.resize(frame.len() + length - piece.len(), 0);
    right_length(&mut frame);
    frame
}

/// Gives a fragment another identification.
fn renumbered(frame: &mut [u8], number: u16) {
    if frame[IP] >> 4 == 4 {
        set(frame, IP + 4, number);
        right_checksum(frame);
    } else {
        set(frame, V6_END + 4, number);
    }
}

/// Frames of one kind.
struct Class {
    name: String,
    reason: Drop,
    frame: Vec<u8>,
    /// Whether each of them is of another datagram.
    renumbered: bool,
    /// What comes before them, once, and is forwarded.
    first: Option<Vec<u8>>,
}

fn class(name: impl Into<String>, reason: Drop, frame: Vec<u8>) -> Class {
    Class {
        name: name.into(),
        reason,
        frame,
        renumbered: false,
        first: None,
    }
}

fn headers(link: &Link) -> Vec<Class> {
    let v4 = || link.v4(Udp);
    let v6 = || link.v6(Udp);
    let cut = |frame: Vec<u8>, length| changed(frame, |it| it.truncate(length));
    vec![
        class("nothing but Ethernet", Drop::Truncated, cut(v4(), IP)),
        class("half an IPv4 header", Drop::Truncated, cut(v4(), IP + 10)),
        class("half an IPv6 header", Drop::Truncated, cut(v6(), IP + 39)),
        class(
            "half a VLAN tag",
            Drop::Truncated,
            cut(tagged(v4(), &[0x8100]), 17),
        ),
        class(
            "half a header behind two VLAN tags",
            Drop::Truncated,
            cut(tagged(v4(), &[0x88a8, 0x8100]), IP + 8 + 19),
        ),
        class(
            "IPv6 as IPv4",
            Drop::BadVersion,
            changed(v4(), |it| it[IP] = 0x65),
        ),
        class(
            "IPv4 as IPv6",
            Drop::BadVersion,
            changed(v6(), |it| it[IP] = 0x45),
        ),
        class(
            "an IPv4 header of 16 bytes",
            Drop::BadHeaderLength,
            changed(v4(), |it| it[IP] = 0x44),
        ),
        class(
            "an IPv4 header of no bytes",
            Drop::BadHeaderLength,
            changed(v4(), |it| it[IP] = 0x40),
        ),
        class(
            "a total length short of the header",
            Drop::BadHeaderLength,
            changed(v4(), |it| {
                set(it, IP + 2, 19);
                right_checksum(it);
            }),
        ),
        class(
            "a total length beyond the frame",
            Drop::BadTotalLength,
            changed(v4(), |it| {
                set(it, IP + 2, 1500);
                right_checksum(it);
            }),
        ),
        class(
            "an IPv4 packet whose end is cut off",
            Drop::BadTotalLength,
            cut(v4(), IP + 30),
        ),
        class(
            "a payload length beyond the frame",
            Drop::BadTotalLength,
            changed(v6(), |it| set(it, IP + 4, 0xffff)),
        ),
        class(
            "a wrong header checksum",
            Drop::BadChecksum,
            changed(v4(), |it| it[IP + 10] ^= 1),
        ),
        class(
            "a wrong header checksum behind two VLAN tags",
            Drop::BadChecksum,
            tagged(changed(v4(), |it| it[IP + 10] ^= 1), &[0x88a8, 0x8100]),
        ),
        class(
            "a loose source route",
            Drop::SourceRoute,
            options(v4(), &[131, 7, 4, 10, 0, 1, 3, 0]),
        ),
        class(
            "a strict source route",
            Drop::SourceRoute,
            options(link.v4(Tcp), &[1, 137, 7, 4, 10, 0, 1, 3]),
        ),
        class(
            "an option without a length",
            Drop::BadOptions,
            options(v4(), &[1, 1, 1, 7]),
        ),
        class(
            "an option of length 0",
            Drop::BadOptions,
            options(v4(), &[7, 0, 0, 0]),
        ),
        class(
            "an option longer than the header",
            Drop::BadOptions,
            options(v4(), &[1, 7, 4, 0]),
        ),
    ]
}

fn addresses(link: &Link) -> Vec<Class> {
    let martians = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "ff02::1",
        "ff0e::1",
    ]
    .map(|source| {
        let name = format!("from {source}");
        class(name, Drop::MartianSource, link.from(source))
    });
    let lands = SERVICE.map(|address| {
        let name = format!("from {address} to itself");
        let frame = link.between(Tcp, [address; 2], [PORT; 2]);
        class(name, Drop::Land, frame)
    });
    let to_itself = class(
        "from an address to itself behind a VLAN tag",
        Drop::Land,
        tagged(link.from(SERVICE[0]), &[0x8100]),
    );
    martians
        .into_iter()
        .chain(lands)
        .chain([to_itself])
        .collect()
}

fn extension_headers(link: &Link) -> Vec<Class> {
    let padding: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let too_long: &[u8] = &[0, 9, 1, 4, 0, 0, 0, 0];
    let v6 = || link.v6(Udp);
    vec![
        class(
            "a type 0 routing header",
            Drop::SourceRoute,
            extensions(v6(), &[(ROUTING, &[0, 0, 0, 1, 0, 0, 0, 0])]),
        ),
        class(
            "a type 0 routing header, used up, behind others",
            Drop::SourceRoute,
            extensions(
                link.v6(Tcp),
                &[
                    (HOP_BY_HOP, padding),
                    (DESTINATION, padding),
                    (ROUTING, &[0; 8]),
                ],
            ),
        ),
        class(
            "extension headers without end",
            Drop::BadOptions,
            extensions(v6(), &[(DESTINATION, padding); 7]),
        ),
        class(
            "an extension header longer than the packet",
            Drop::BadOptions,
            extensions(v6(), &[(DESTINATION, too_long)]),
        ),
        class(
            "an extension header longer than the packet, but not than the frame",
            Drop::BadOptions,
            changed(extensions(v6(), &[(DESTINATION, too_long)]), |it| {
                it.extend([0; 128]);
            }),
        ),
        class(
            "an extension header that the frame ends in",
            Drop::BadOptions,
            other(v6(), HOP_BY_HOP, &[6, 0, 1, 2]),
        ),
        class(
            "a chain of extension headers that the packet ends in",
            Drop::BadOptions,
            other(
                v6(),
                HOP_BY_HOP,
                &[
                    &[DESTINATION, 0, 1, 4, 0, 0, 0, 0][..],
                    &[6, 1, 1, 4, 0, 0, 0, 0],
                ]
                .concat(),
            ),
        ),
    ]
}

fn transport(link: &Link) -> Vec<Class> {
    let mut classes = Vec::new();
    for (family, end) in [(0, V4_END), (1, V6_END)] {
        let good = |transport| {
            if family == 0 {
                link.v4(transport)
            } else {
                link.v6(transport)
            }
        };
        let version = ["IPv4", "IPv6"][family];
        let ends = [CLIENT[family], SERVICE[family]];
        for (transport, word) in [(Tcp, "TCP"), (Udp, "UDP")] {
            for (ports, which) in [([0, PORT], "from"), ([FROM, 0], "to")] {
                classes.push(class(
                    format!("{which} {word} port 0 over {version}"),
                    Drop::PortZero,
                    link.between(transport, ends, ports),
                ));
            }
        }
        let mut lie = |name: &str, reason, transport, change: &dyn Fn(&mut Vec<u8>)| {
            let frame = changed(good(transport), |it| change(it));
            classes.push(class(format!("{name} over {version}"), reason, frame));
        };
        let (tcp, udp) = (Drop::BadTcpHeader, Drop::BadUdpLength);
        lie("a TCP data offset of 16", tcp, Tcp, &|it| {
            it[end + 12] = 0x40;
        });
        lie("a TCP data offset beyond the packet", tcp, Tcp, &|it| {
            it[end + 12] = 0xf0;
        });
        lie("a TCP data offset into what is behind", tcp, Tcp, &|it| {
            it[end + 12] = 0xf0;
            it.extend([0; 64]);
        });
        lie("half a TCP header", tcp, Tcp, &|it| {
            it.truncate(end + 19);
            right_length(it);
        });
        lie("a UDP length of 7", udp, Udp, &|it| set(it, end + 4, 7));
        lie("a UDP length of 0", udp, Udp, &|it| set(it, end + 4, 0));
        lie("a UDP length beyond the packet", udp, Udp, &|it| {
            set(it, end + 4, 8 + 16 + 1);
        });
        lie("a UDP length into what is behind", udp, Udp, &|it| {
            set(it, end + 4, 64);
            it.extend([0; 64]);
        });
        lie("half a UDP header", udp, Udp, &|it| {
            it.truncate(end + 7);
            right_length(it);
        });
    }
    classes
}

fn fragments(link: &Link) -> Vec<Class> {
    let mut classes = Vec::new();
    for (version, tcp, udp, first) in [
        ("IPv4", link.v4(Tcp), link.v4(Udp), 60_000),
        ("IPv6", link.v6(Tcp), link.v6(Udp), 60_000_u16),
    ] {
        let mut add = |name: &str, reason, frame| {
            classes.push(Class {
                renumbered: true,
                ..class(format!("{name} over {version}"), reason, frame)
            });
        };
        let bad = Drop::BadFragment;
        add(
            "a fragment of no multiple of eight bytes",
            bad,
            fragment(udp.clone(), 0, 12, true),
        );
        add(
            "a fragment of no multiple of eight bytes in the middle",
            bad,
            fragment(udp.clone(), 8, 12, true),
        );
        add(
            "a fragment that ends beyond 65,535 bytes",
            bad,
            fragment(udp.clone(), 0xfff8, 16, false),
        );
        add(
            "a fragment without data",
            bad,
            fragment(udp.clone(), 16, 0, true),
        );
        add(
            "a first fragment with half a TCP header",
            Drop::TinyFragment,
            fragment(tcp.clone(), 0, 16, true),
        );
        add(
            "a first fragment with nothing but ports",
            Drop::TinyFragment,
            fragment(tcp.clone(), 0, 8, true),
        );
        for (number, (start, name)) in (first..).zip([
            (0, "the first fragment again"),
            (8, "a fragment that overlaps the first"),
        ]) {
            let numbered = |frame| changed(frame, |it| renumbered(it, number));
            classes.push(Class {
                first: Some(numbered(fragment(udp.clone(), 0, 16, true))),
                ..class(
                    format!("{name} over {version}"),
                    Drop::FragmentOverlap,
                    numbered(fragment(udp.clone(), start, 16, start == 0)),
                )
            });
        }
    }
    let mut options = fragment(link.v6(Udp), 0, 16, true);
    options[V6_END] = DESTINATION;
    options[V6_END + 9] = 40;
    classes.push(Class {
        renumbered: true,
        ..class(
            "a first fragment that ends in an extension header",
            Drop::TinyFragment,
            options,
        )
    });
    classes
}

/// What was counted so far.
struct Counters<'a> {
    site: &'a Site,
    /// What the program has counted itself.
    program: PerCpuArray<MapData, Record<Stats>>,
}

impl<'a> Counters<'a> {
    fn of(site: &'a Site) -> Self {
        let pin = MapData::from_pin(site.pins.join(map::STATS)).unwrap();
        Self {
            site,
            program: Map::PerCpuArray(pin).try_into().unwrap(),
        }
    }

    /// Frames that the program has given to the kernel for a reason.
    fn passed(&self, reason: Pass) -> u64 {
        let counter = Verdict::from(reason).counter();
        let of_cpu = |Record(stats): &Record<Stats>| stats.verdicts[counter];
        self.program.get(&0, 0).unwrap().iter().map(of_cpu).sum()
    }

    /// All frames.
    fn received(&self) -> u64 {
        self.site.status().packets.received
    }

    /// Waits until so many frames more than `before` were counted.
    fn wait(&self, before: u64, count: usize) {
        eventually("the frames to be counted", PATIENCE, || {
            self.received() >= before + count as u64
        })
        .unwrap();
    }
}

/// Sends [`COUNT`] frames, no more at a time than the link holds, and waits for all to be counted.
fn send(port: &RawPort, counters: &Counters<'_>, frame: impl Fn(u16) -> Vec<u8>) {
    let frames: Vec<Vec<u8>> = (0..COUNT).map(frame).collect();
    for burst in frames.chunks(BURST) {
        let before = counters.received();
        for frame in burst {
            port.send(frame).unwrap();
        }
        counters.wait(before, burst.len());
    }
}

/// The daemon's resident memory, in bytes.
fn resident(site: &Site) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.daemon().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}

/// Whether a frame is of what services are for: not what hosts on a link tell each other.
fn is_traffic(frame: &[u8]) -> bool {
    const ICMPV6: u8 = 58;
    match frame[12..14] {
        [0x08, 0x06] => false,
        // Of multicast listeners' reports the first header is one of hop-by-hop options.
        [0x86, 0xdd] => !matches!(frame.get(IP + 6), Some(&(ICMPV6 | HOP_BY_HOP))),
        _ => true,
    }
}

/// Over all services, as clients do.
fn talk(site: &Site) {
    for address in SERVICE {
        let to = SocketAddr::new(address.parse().unwrap(), PORT);
        assert_eq!(greeting(&site.client, to, None).0, "b1");
        let answer = site.client.udp_exchange(to, None, b"?", SOON).unwrap();
        assert!(answer.starts_with(b"b1"), "{answer:?}");
    }
}

fn site(name: &str) -> Option<(Site, TcpEcho, UdpEcho)> {
    let mut site = Site::new(name, Shape::Links, 1)?;
    let servers = (
        TcpEcho::start(&site.backends[0], [PORT]).unwrap(),
        UdpEcho::start(&site.backends[0], [PORT]).unwrap(),
    );
    // So that a first fragment is known for as long as this takes.
    site.datapath_key("[timeouts]\nfragment = \"1m\"");
    let services = ["tcp", "udp"].map(|protocol| site.both_families(protocol, PORT));
    site.start(&services.concat());
    Some((site, servers.0, servers.1))
}

#[test]
fn a_thousand_frames_of_each_malformed_kind_are_dropped_and_counted() {
    let Some((site, _tcp, udp)) = site("hostile") else {
        return;
    };
    let link = Link::of(&site);
    let classes: Vec<Class> = [
        headers(&link),
        addresses(&link),
        extension_headers(&link),
        transport(&link),
        fragments(&link),
    ]
    .into_iter()
    .flatten()
    .collect();
    talk(&site);
    let uncounted = site.uncounted();
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let backend = RawPort::open(&site.backends[0], "eth0").unwrap();
    let counters = Counters::of(&site);
    let forwarded = || site.status().packets.forwarded;
    let (memory, answered) = (resident(&site), udp.datagrams());
    let mut expected = site.drops().drops;
    let dropped = |drops: &std::collections::BTreeMap<String, u64>| drops.values().sum::<u64>();
    assert_eq!(dropped(&expected), 0, "{expected:?}");
    let mut identification = 0;
    for class in &classes {
        let name = &class.name;
        let before = forwarded();
        if let Some(first) = &class.first {
            let received = counters.received();
            port.send(first).unwrap();
            counters.wait(received, 1);
            assert_eq!(forwarded(), before + 1, "{name}: what comes before");
            let there = backend.receive(SOON, is_traffic).unwrap();
            assert!(there.is_some(), "{name}: what comes before");
        }
        send(&port, &counters, |number| {
            changed(class.frame.clone(), |it| {
                if class.renumbered {
                    renumbered(it, identification + number);
                }
            })
        });
        identification += if class.renumbered { COUNT } else { 0 };
        *expected.get_mut(class.reason.name()).unwrap() += u64::from(COUNT);
        let drops = site.drops().drops;
        let wrong: Vec<_> = drops
            .iter()
            .filter(|&(reason, count)| *count != expected[reason])
            .map(|(reason, count)| (reason, *count, expected[reason]))
            .collect();
        assert_eq!(wrong, [], "{name}: reasons, counts, expected counts");
        let first = u64::from(class.first.is_some());
        assert_eq!(forwarded(), before + first, "{name}: forwarded");
        let there = backend.receive(Duration::ZERO, is_traffic).unwrap();
        assert_eq!(there, None, "{name}: at the backend");
    }
    let grown = resident(&site).saturating_sub(memory);
    println!(
        "{} frames of {} kinds dropped; the daemon's resident memory was {} KiB, and grew by {} KiB",
        classes.len() * usize::from(COUNT),
        classes.len(),
        memory >> 10,
        grown >> 10
    );
    assert!(grown < GROWTH, "{grown} bytes");
    let status = site.status();
    assert_eq!(status.packets.dropped, dropped(&expected));
    assert_eq!(status.packets.held, 0);
    assert_eq!(udp.datagrams(), answered);
    assert_eq!(site.uncounted(), uncounted, "every frame was counted once");
    talk(&site);
}

#[test]
fn what_is_not_for_a_service_is_left_to_the_kernel() {
    let Some((site, _tcp, udp)) = site("passed") else {
        return;
    };
    let link = Link::of(&site);
    let inner = |frame: Vec<u8>| frame[IP..].to_vec();
    let to_mac = |first: u8| changed(link.v4(Udp), |it| it[0] = first);
    let classes = [
        (
            "IPv4 in IPv4",
            Pass::OtherProtocol,
            other(link.v4(Udp), 4, &inner(link.v4(Tcp))),
        ),
        (
            "IPv6 in IPv4",
            Pass::OtherProtocol,
            other(link.v4(Udp), 41, &inner(link.v6(Tcp))),
        ),
        (
            "IPv4 in IPv6",
            Pass::OtherProtocol,
            other(link.v6(Udp), 4, &inner(link.v4(Tcp))),
        ),
        (
            "IPv6 in IPv6",
            Pass::OtherProtocol,
            other(link.v6(Udp), 41, &inner(link.v6(Tcp))),
        ),
        (
            "GRE",
            Pass::OtherProtocol,
            other(link.v4(Udp), 47, &[0, 0, 8, 0, 0x45, 0, 0, 20]),
        ),
        (
            "to an Ethernet group address",
            Pass::NotUnicast,
            to_mac(0x01),
        ),
        (
            "to the Ethernet broadcast address",
            Pass::NotUnicast,
            changed(link.v4(Udp), |it| it[..6].fill(0xff)),
        ),
        (
            "to an IPv4 multicast address",
            Pass::NotUnicast,
            link.to("224.0.0.1"),
        ),
        (
            "to the IPv4 broadcast address",
            Pass::NotUnicast,
            link.to("255.255.255.255"),
        ),
        (
            "to an IPv6 multicast address",
            Pass::NotUnicast,
            link.to("ff02::1"),
        ),
        (
            "to the broadcast address of the link",
            Pass::NoService,
            link.to("192.0.2.255"),
        ),
        (
            "three VLAN tags",
            Pass::NotIp,
            tagged(link.v4(Udp), &[0x88a8, 0x8100, 0x8100]),
        ),
        (
            "a VLAN tag of before the standard",
            Pass::NotIp,
            tagged(link.v4(Udp), &[0x9100]),
        ),
    ];
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let backend = RawPort::open(&site.backends[0], "eth0").unwrap();
    let counters = Counters::of(&site);
    let uncounted = site.uncounted();
    for (name, reason, frame) in &classes {
        let before = site.status().packets;
        let passed = counters.passed(*reason);
        send(&port, &counters, |_| frame.clone());
        let passed = counters.passed(*reason) - passed;
        let after = site.status().packets;
        // Hosts on a link find each other meanwhile.
        let expected = u64::from(COUNT)..u64::from(COUNT) + 100;
        assert!(expected.contains(&passed), "{name}: {passed}");
        assert!(expected.contains(&(after.passed - before.passed)), "{name}");
        assert_eq!(after.forwarded, before.forwarded, "{name}");
        assert_eq!(after.dropped, before.dropped, "{name}");
        let there = backend.receive(Duration::ZERO, is_traffic).unwrap();
        assert_eq!(there, None, "{name}: at the backend");
    }
    assert_eq!(udp.datagrams(), 0);
    assert_eq!(site.status().connections.current, 0);
    assert_eq!(site.uncounted(), uncounted);
    talk(&site);
}

/// Tags up to two are not in the way: see `parse.rs`. Such a frame goes on as any other, its tags kept.
#[test]
fn tagged_frames_to_a_service_are_sent_on_with_their_tags() {
    let Some((site, _tcp, _udp)) = site("tagged") else {
        return;
    };
    let link = Link::of(&site);
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let backend = RawPort::open(&site.backends[0], "eth0").unwrap();
    let counters = Counters::of(&site);
    for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
        let before = site.status().packets;
        let frame = tagged(link.v4(Udp), tags);
        send(&port, &counters, |_| frame.clone());
        let after = site.status().packets;
        assert_eq!(after.forwarded, before.forwarded + u64::from(COUNT));
        assert_eq!(after.dropped, before.dropped);
        let there = backend.receive(SOON, is_traffic).unwrap().unwrap();
        backend.clear().unwrap();
        let tags = 12..12 + 4 * tags.len();
        assert_eq!(there[tags.clone()], frame[tags], "the tags");
    }
    // One flow for both: of its tuple.
    assert_eq!(site.status().connections.current, 1);
    talk(&site);
}
