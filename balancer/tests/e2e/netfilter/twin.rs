//! A site whose two ends are mute: what comes out of the box is due to the frames that the test sends.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use balancer_lab::{Announce, MacAddress, RawPort, eventually};

use super::text::{Net, Reader};
use super::world::{PORTS, Side, WORLDS, World};
use crate::hostile::right_checksum;
use crate::site::{PATIENCE, SOON, Shape, Site};
use crate::support::frame::{Frame, checksum, udp};
use crate::support::{BACKEND_MAC, BOX_MAC, CLIENT_MAC, OTHER_BOX_MAC};

const IP: usize = 14;
/// Where the identification of an IPv4 header is.
const IDENTIFICATION: usize = IP + 4;
/// An option of IPv4.
const TIMESTAMP: u8 = 68;

/// The client's port that the backend sees, when it is another than the client's own: the last of the sequence.
pub const REPLACED: u16 = PORTS - 1;

/// The ports of the flow that tells when all before it has come.
const FENCE: [u16; 2] = [3000, 9];

/// Behind this are the identifications of that flow's datagrams.
const FENCES: u16 = 0x8000;

/// How long a step takes at least. Each has four datagrams that are handed to the daemon, and the program hands over no more
/// than 1,024 in 134 ms.
const STEP: Duration = Duration::from_millis(1);

/// One of the two sites.
pub struct Twin {
    site: Site,
    /// At the client's and at the backend's side.
    ports: [RawPort; 2],
    fences: u16,
    /// When the last step began.
    began: Instant,
    /// What the sequence's client got in place of its port.
    given: Option<u16>,
}

/// What came out, as text and normalised, in order: at the client's side, then at the backend's.
pub type Heard = Vec<(String, Vec<u8>)>;

impl Twin {
    /// With balancerd.
    pub fn balanced(name: &str) -> Option<Self> {
        let mut site = mute(name)?;
        let mut services = String::new();
        for world in WORLDS {
            let source_nat = if world.is_masqueraded() {
                "masquerade"
            } else {
                "none"
            };
            for protocol in ["tcp", "udp"] {
                let name = format!("{protocol}{}{source_nat}", u8::from(world.is_ipv4()));
                let at = |address, port| SocketAddr::new(address, port);
                let listen = at(world.service(), world.service_port());
                let backend = at(world.backend(), world.backend_port());
                write!(
                    services,
                    "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\nsource_nat = \"{source_nat}\"\nbackend = [{{ address = \"{backend}\" }}]\n"
                )
                .unwrap();
            }
        }
        services += "[[service]]\nname = \"fence\"\nlisten = \"192.0.2.10:9\"\nprotocol = \"udp\"\nbackend = [{ address = \"10.0.1.3\" }]\n";
        site.start(&services);
        Some(Self::of(site))
    }

    /// With the kernel's netfilter. The error is of a kernel that does not take the rules.
    pub fn filtered(name: &str) -> Option<Result<Self, String>> {
        let site = mute(name)?;
        let mut rules = String::new();
        for (family, four) in [("ip", true), ("ip6", false)] {
            let mut before = String::new();
            let mut after = String::new();
            for world in WORLDS.into_iter().filter(|world| world.is_ipv4() == four) {
                let (service, backend) = (world.service(), world.backend());
                for protocol in ["tcp", "udp"] {
                    let (from, to) = (world.service_port(), world.backend_port());
                    let target = SocketAddr::new(backend, to);
                    writeln!(
                        before,
                        "{family} daddr {service} {protocol} dport {from} dnat to {target}"
                    )
                    .unwrap();
                    if world.is_masqueraded() {
                        writeln!(after, "ct status dnat {family} daddr {backend} {protocol} dport {to} masquerade").unwrap();
                    }
                }
            }
            if four {
                before += "ip daddr 192.0.2.10 udp dport 9 dnat to 10.0.1.3\n";
                after += "ct status dnat ip daddr 10.0.1.3 udp dport 9 masquerade\n";
            }
            write!(
                rules,
                "table {family} nat {{\nchain before {{\ntype nat hook prerouting priority dstnat;\n{before}}}\n\
                 chain after {{\ntype nat hook postrouting priority srcnat;\n{after}}}\n}}\n"
            )
            .unwrap();
        }
        site.balancer.run("nft", ["--version"]).unwrap();
        let path = site.directory().join("rules.nft");
        fs::write(&path, rules).unwrap();
        let loaded = site.balancer.run("nft", ["-f".as_ref(), path.as_os_str()]);
        Some(match loaded {
            Ok(_) => Ok(Self::of(site)),
            Err(error) => Err(error.to_string()),
        })
    }

    fn of(site: Site) -> Self {
        let ports =
            [&site.client, &site.backends[0]].map(|host| RawPort::open(host, "eth0").unwrap());
        let twin = Self {
            site,
            ports,
            fences: FENCES,
            began: Instant::now(),
            given: None,
        };
        for (from, frame) in fence().iter().enumerate() {
            twin.ports[from].send(&frame.build()).unwrap();
            let is_it =
                |frame: &[u8]| matches!(Net::of(&frame[IP..]), Some(net) if net.protocol == 17);
            let heard = twin.ports[1 - from].receive(SOON, is_it).unwrap();
            assert!(heard.is_some(), "no datagram between the ends");
        }
        twin
    }

    /// That the daemon has done all that it was given, of its own accord: what it has not done would be missing from what is compared.
    pub fn check_slow_path(&self) {
        let counts = self.site.status().slow_path;
        let undone = [
            counts.limited,
            counts.unsent,
            counts.overflowed,
            counts.failed,
        ];
        assert_eq!(undone, [0; 4], "{counts:?}");
    }

    /// A new sequence begins.
    pub fn forget(&mut self) {
        self.given = None;
    }

    /// Sends frames, each from its side, and tells what came of them.
    pub fn play(&mut self, world: World, first: u16, frames: &[(Side, Vec<u8>)]) -> Heard {
        thread::sleep(STEP.saturating_sub(self.began.elapsed()));
        self.began = Instant::now();
        for (side, frame) in frames {
            let mut frame = frame.clone();
            if *side == Side::Backend {
                let to = self.given.unwrap_or(first);
                replace_port(&mut frame, 1, first + REPLACED, to);
            }
            self.ports[*side as usize].send(&frame).unwrap();
        }
        let mut heard = [Vec::new(), Vec::new()];
        for side in Side::BOTH {
            self.fence(side, &mut heard);
        }
        let starts = frames.iter().filter_map(|(_, frame)| start(frame));
        if !starts.is_sorted() {
            self.wait_for_held();
        }
        // Again: who answers what went by the first one may do so only after it.
        for side in Side::BOTH {
            self.fence(side, &mut heard);
        }
        let mut result = Vec::new();
        let mut datagrams = Vec::new();
        for (side, frames) in Side::BOTH.into_iter().zip(heard) {
            let reader = Reader { world, side, first };
            for mut frame in frames {
                if side == Side::Backend {
                    self.take_port(world, first, &mut frame);
                }
                normalise(&mut frame, &mut datagrams);
                result.push((reader.frame(&frame), frame));
            }
        }
        result
    }

    /// Waits until the daemon keeps no fragment any more. It has counted all that it was given: a fence has gone by it since.
    fn wait_for_held(&self) {
        if !self.site.has_daemon() {
            return;
        }
        eventually("fragments that came early to go on", PATIENCE, || {
            let counts = self.site.status().slow_path;
            let done = counts.resumed + counts.expired + counts.overflowed + counts.failed;
            counts.held.values().sum::<u64>() == done
        })
        .unwrap();
    }

    /// Waits until all that is under way from a side to the other has come there. The datagram that tells it is one of those that the
    /// daemon has to handle: two fragments, the last one first.
    fn fence(&mut self, from: Side, heard: &mut [Vec<Vec<u8>>; 2]) {
        let frame = &fence()[from as usize];
        let to = 1 - from as usize;
        self.fences += 1;
        for (start, length) in [(16, 8), (0, 16)] {
            let piece = frame.clone().cut(start, length);
            let bytes = piece.identification(self.fences).build();
            self.ports[from as usize].send(&bytes).unwrap();
        }
        let last = self.ports[to].receive(PATIENCE, |frame| {
            let is_ipv4 = frame[12..14] == [8, 0];
            let identification =
                u16::from_be_bytes([frame[IDENTIFICATION], frame[IDENTIFICATION + 1]]);
            if is_ipv4 && identification > FENCES && frame[IP + 9] == 17 {
                return identification == self.fences && frame[IDENTIFICATION + 3] != 0;
            }
            // To groups the box sends frames of its own.
            if (is_ipv4 || frame[12..14] == [0x86, 0xdd]) && frame[0] & 1 == 0 {
                heard[to].push(frame.to_vec());
            }
            false
        });
        assert!(
            last.unwrap().is_some(),
            "nothing comes through {} from the {}",
            self.site.lab.prefix(),
            from.name()
        );
    }

    /// Notes and replaces a port that the box has given to the sequence's client.
    fn take_port(&mut self, world: World, first: u16, frame: &mut [u8]) {
        let Some(net) = Net::of(&frame[IP..]) else {
            return;
        };
        let Some([source, _]) = net.ports() else {
            return;
        };
        if net.source == world.peer() && !(first..first + PORTS).contains(&source) && source >= 1024
        {
            self.given = Some(source);
            replace_port(frame, 0, source, first + REPLACED);
        }
    }
}

/// What goes each way between client and backend.
fn fence() -> [Frame; 2] {
    let [port, service] = FENCE;
    let datagram = |source: &str, destination: &str, [there, here]: [[u8; 6]; 2]| {
        udp(source, destination)
            .macs(there, here)
            .fragment(0)
            .payload(b"sixteen  letters")
    };
    [
        datagram(
            &format!("192.0.2.1:{port}"),
            &format!("192.0.2.10:{service}"),
            macs(Side::Client),
        ),
        datagram(
            &format!("10.0.1.3:{service}"),
            &format!("10.0.1.1:{port}"),
            macs(Side::Backend),
        ),
    ]
}

/// The box's Ethernet address and the other end's.
pub const fn macs(side: Side) -> [[u8; 6]; 2] {
    match side {
        Side::Client => [BOX_MAC, CLIENT_MAC],
        Side::Backend => [OTHER_BOX_MAC, BACKEND_MAC],
    }
}

/// A site whose ends have no addresses any more; the box knows where they were. All have the Ethernet addresses of [`macs`].
fn mute(name: &str) -> Option<Site> {
    let site = Site::new(name, Shape::Links, 1)?;
    let sides = [
        (Side::Client, &site.client, "eth0"),
        (Side::Backend, &site.backends[0], "eth1"),
    ];
    for (side, end, device) in sides {
        end.ip("addr flush dev eth0").unwrap();
        end.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let [here, there] = macs(side).map(MacAddress);
        end.set_mac("eth0", there, Announce::No).unwrap();
        site.balancer.set_mac(device, here, Announce::No).unwrap();
        let addresses: BTreeSet<_> = WORLDS
            .into_iter()
            .flat_map(|world| match side {
                Side::Client => vec![world.client(), world.other()],
                Side::Backend => vec![world.backend()],
            })
            .collect();
        for address in addresses {
            (site.balancer)
                .ip(&format!(
                    "neigh replace {address} lladdr {there} dev {device} nud permanent"
                ))
                .unwrap();
        }
    }
    // Less than what a frame can carry.
    site.balancer.ip("link set eth1 mtu 1400").unwrap();
    // The kernel's own limits on errors.
    for (key, value) in [
        ("net/ipv4/icmp_ratemask", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
    ] {
        site.balancer.sysctl(key, value).unwrap();
    }
    Some(site)
}

/// Takes out what the box is free to choose: of packets of its own the identification and the flow label, of a timestamp the time, of
/// fragments over IPv6 the identification, which becomes the number of its datagram. The box is the only one that sends with a TTL of
/// 64, after which nothing comes.
fn normalise(frame: &mut [u8], datagrams: &mut Vec<[u8; 4]>) {
    if frame[12..14] != [8, 0] {
        if frame[IP + 7] == 64 {
            frame[IP + 1..IP + 4].fill(0);
        }
        let is_fragment = frame[IP + 6] == 44;
        if is_fragment && let Some(identification) = frame[IP + 44..].first_chunk_mut() {
            let known = datagrams.iter().position(|it| it == identification);
            let number = known.unwrap_or_else(|| {
                datagrams.push(*identification);
                datagrams.len() - 1
            });
            *identification = (number as u32).to_be_bytes();
        }
        return;
    }
    let end = IP + usize::from(frame[IP] & 15) * 4;
    if checksum(&frame[IP..end]) != 0 {
        return;
    }
    if frame[IP + 8] == 64 {
        frame[IDENTIFICATION..IDENTIFICATION + 2].fill(0);
    }
    if let [TIMESTAMP, _, pointer, _, time @ ..] = &mut frame[IP + 20..end]
        && *pointer > 5
    {
        time.fill(1);
    }
    right_checksum(frame);
}

/// Where a fragment begins in its datagram.
fn start(frame: &[u8]) -> Option<u16> {
    let (start, _) = Net::of(&frame[IP..])?.fragment?;
    Some(start)
}

/// Replaces source (0) or destination (1) port, if it is `old`, and updates the checksum.
fn replace_port(frame: &mut [u8], index: usize, old: u16, new: u16) {
    let Some(net) = Net::of(&frame[IP..]) else {
        return;
    };
    if net.ports().is_none_or(|ports| ports[index] != old) {
        return;
    }
    let start = IP + net.offset;
    let sum = start + if net.protocol == 17 { 6 } else { 16 };
    let at = start + 2 * index;
    frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
    if let Some(field) = frame.get_mut(sum..sum + 2)
        && field != [0, 0]
    {
        // RFC 1624, equation 3.
        let was = u16::from_be_bytes([field[0], field[1]]);
        let words = [!was, !old, new].map(u16::to_be_bytes).concat();
        field.copy_from_slice(&checksum(&words).to_be_bytes());
    }
}
