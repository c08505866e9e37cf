//! What becomes of a packet.

use crate::hop::Hop;

/// The pipeline's answer. Each engine turns it into its own action in one exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Send it out of the interface that it came in by.
    Transmit,
    /// Send it out of the interface with this index.
    Redirect(u32),
    /// To the kernel, untouched.
    Pass(Pass),
    /// Gone.
    Drop(Drop),
    /// To the slow path, which will give it back or drop it.
    Punt(Punt),
}

/// The way of a packet that is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Out of the interface that it came in by.
    Transmit,
    /// Out of the interface with this index.
    Redirect(u32),
}

impl Way {
    /// By a next hop, of a packet that came in by `interface`.
    #[inline(always)]
    #[must_use]
    pub const fn by(hop: &Hop, interface: u32) -> Self {
        if hop.interface() == interface {
            Self::Transmit
        } else {
            Self::Redirect(hop.interface())
        }
    }
}

/// Why a packet is not sent on: a [`Pass`] or a [`Drop`], as the number of its counter.
///
/// One word, since each place that a packet is turned away at has to load it, also for the packets that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exit(u32);

/// Declares a fieldless enum of reasons together with their names: a reason is also its counter, so the names
/// must exist exactly once.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every reason, in the order of its counter.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in counters, documents and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// Why a packet goes to the kernel.
    Pass {
        /// Neither IPv4 nor IPv6: ARP, LLDP, more than two VLAN tags.
        NotIp = "not_ip",
        /// To a multicast or broadcast address, of Ethernet or IP: neighbour discovery, DHCP, routing protocols.
        NotUnicast = "not_unicast",
        /// Neither TCP nor UDP: ICMP, ESP, UDP-Lite.
        OtherProtocol = "other_protocol",
        /// A fragment of a packet of the kernel's, or of which the first has not come.
        Fragment = "fragment",
        /// No connection knows it and no service listens for it.
        NoService = "no_service",
        /// For engine `userspace`, whose daemon is gone.
        NoDaemon = "no_daemon",
    }
}

reasons! {
    /// Why a packet is dropped.
    Drop {
        /// The frame ends inside a header.
        Truncated = "truncated",
        /// The version field contradicts the Ethernet type.
        BadVersion = "bad_version",
        /// An IPv4 header length below 20 bytes or beyond the total length.
        BadHeaderLength = "bad_header_length",
        /// A total or payload length beyond the frame or short of the headers.
        BadTotalLength = "bad_total_length",
        /// A wrong IPv4 header checksum.
        BadChecksum = "bad_checksum",
        /// An IPv4 loose or strict source route (RFC 7126, sections 4.3 and 4.4), or an IPv6 type 0 routing header (RFC 5095).
        SourceRoute = "source_route",
        /// IPv4 options or IPv6 extension headers that cannot be walked.
        BadOptions = "bad_options",
        /// Source and destination address are the same.
        Land = "land",
        /// A source address that no host can have: multicast, broadcast, loopback, unspecified (RFC 1812, section 5.3.7).
        MartianSource = "martian_source",
        /// Source or destination port 0.
        PortZero = "port_zero",
        /// A TCP data offset below 20 bytes or beyond the packet.
        BadTcpHeader = "bad_tcp_header",
        /// A UDP length below 8 bytes or beyond the packet.
        BadUdpLength = "bad_udp_length",
        /// A fragment that no packet can have: its length is no multiple of 8 although more is to come, or it ends beyond 65,535 bytes.
        BadFragment = "bad_fragment",
        /// A first fragment that does not hold the whole transport header (RFC 1858, section 3; RFC 7112).
        TinyFragment = "tiny_fragment",
        /// A fragment of data that has gone on already (RFC 5722).
        FragmentOverlap = "fragment_overlap",
        /// A fragment of a packet that was dropped, or whose connection is gone, or one that was too early when the slow path took none.
        FragmentOrphan = "fragment_orphan",
        /// Longer than the next link takes, and not to be cut: by its own wish, or since nobody is there to do it.
        TooBig = "too_big",
        /// The TTL or hop limit ran out.
        TtlExceeded = "ttl_exceeded",
        /// TCP to a service, not a SYN, and no connection knows it.
        NoConnection = "no_connection",
        /// The service has no backend that takes connections.
        NoBackend = "no_backend",
        /// The connection table is full.
        TableFull = "table_full",
        /// The bound on half-open connections is reached.
        HalfOpenFull = "half_open_full",
        /// Many connections are half-open: the first packet of another, which opens it when it comes again.
        FirstPacket = "first_packet",
        /// No free source port was found for the backend.
        PortsExhausted = "ports_exhausted",
        /// Without source NAT, another connection has the same client, port and backend already.
        TupleInUse = "tuple_in_use",
        /// The backend's link-layer address is not known yet.
        NoNextHop = "no_next_hop",
        /// Other CPUs were entering connections at the same place of the table all the time: the packet must come again.
        Contended = "contended",
        /// A table was not there: the program runs before the daemon filled it.
        NotReady = "not_ready",
        /// For engine `userspace`, whose daemon is gone.
        NoDaemon = "no_daemon",
        /// Engine `userspace` was too slow: no room where its daemon receives or sends.
        QueueFull = "queue_full",
    }
}

reasons! {
    /// Why a packet goes to the slow path, where there is one.
    Punt {
        /// A fragment that came before the one before it.
        Fragment = "fragment",
        /// An IPv4 packet that is longer than the next link takes, and may be cut.
        TooBig = "too_big",
        /// A new connection for which no free source port was found at once.
        Ports = "ports",
        /// The way to a backend or client is not known.
        NextHop = "next_hop",
    }
}

impl Drop {
    /// Whether the sender is told, where somebody is there to do it: what it wants is not to be had, and asking again
    /// soon is of no use. Nobody is told of what is malformed; of a lack that passes by itself a repeated SYN is the
    /// better test.
    #[inline(always)]
    #[must_use]
    pub const fn is_told(self) -> bool {
        matches!(
            self,
            Self::TtlExceeded
                | Self::TooBig
                | Self::NoConnection
                | Self::NoBackend
                | Self::TableFull
                | Self::PortsExhausted
                | Self::TupleInUse
                | Self::NoNextHop
        )
    }
}

/// The counters of the reasons of which the sender is told, as bits.
const TOLD: u64 = {
    let mut told = 0;
    let mut index = 0;
    while index < Drop::ALL.len() {
        if Drop::ALL[index].is_told() {
            told |= 1 << (FIRST_DROP + index as u32);
        }
        index += 1;
    }
    told
};

/// How many counters a verdict can fall under.
pub const VERDICTS: usize = 2 + Pass::ALL.len() + Drop::ALL.len() + Punt::ALL.len();

/// The counter of the first reason to pass a packet, to drop one, and to hand one over; those of ways are before.
const FIRST_PASS: u32 = 2;
const FIRST_DROP: u32 = FIRST_PASS + Pass::ALL.len() as u32;
const FIRST_PUNT: u32 = FIRST_DROP + Drop::ALL.len() as u32;

impl Way {
    /// The number of its counter, below [`VERDICTS`].
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> usize {
        match self {
            Self::Transmit => 0,
            Self::Redirect(_) => 1,
        }
    }

    /// Whether a counter is of packets that were sent on.
    #[inline(always)]
    #[must_use]
    pub const fn is_counter(counter: u32) -> bool {
        counter < FIRST_PASS
    }
}

impl Exit {
    /// The number of its counter, below [`VERDICTS`].
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> usize {
        self.0 as usize
    }

    /// Whether the packet is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self.0 >= FIRST_DROP && self.0 < FIRST_PUNT
    }

    /// Whether it is for the slow path.
    #[inline(always)]
    #[must_use]
    pub const fn is_punt(self) -> bool {
        self.0 >= FIRST_PUNT
    }

    /// Whether the packet is dropped, and its sender is [told](Drop::is_told).
    #[inline(always)]
    #[must_use]
    pub const fn is_told(self) -> bool {
        TOLD >> self.0 & 1 != 0
    }

    /// That of a counter.
    #[inline(always)]
    #[must_use]
    pub const fn of_counter(counter: u32) -> Self {
        Self(counter)
    }

    /// One word, for an engine that keeps a part of the pipeline in a function of its own; 0 is no exit.
    #[inline(always)]
    #[must_use]
    pub const fn encode(result: Result<(), Self>) -> u32 {
        match result {
            Ok(()) => 0,
            Err(exit) => exit.0,
        }
    }

    /// The inverse of [`Exit::encode`].
    ///
    /// # Errors
    /// The exit that was encoded.
    #[inline(always)]
    pub const fn decode(word: u32) -> Result<(), Self> {
        match word {
            0 => Ok(()),
            exit => Err(Self(exit)),
        }
    }
}

impl From<Drop> for Exit {
    #[inline(always)]
    fn from(reason: Drop) -> Self {
        Self(FIRST_DROP + reason as u32)
    }
}

impl From<Pass> for Exit {
    #[inline(always)]
    fn from(reason: Pass) -> Self {
        Self(FIRST_PASS + reason as u32)
    }
}

impl From<Punt> for Exit {
    #[inline(always)]
    fn from(reason: Punt) -> Self {
        Self(FIRST_PUNT + reason as u32)
    }
}

impl From<Punt> for Verdict {
    #[inline(always)]
    fn from(reason: Punt) -> Self {
        Self::Punt(reason)
    }
}

impl From<Drop> for Verdict {
    #[inline(always)]
    fn from(reason: Drop) -> Self {
        Self::Drop(reason)
    }
}

impl From<Pass> for Verdict {
    #[inline(always)]
    fn from(reason: Pass) -> Self {
        Self::Pass(reason)
    }
}

impl From<Exit> for Verdict {
    fn from(exit: Exit) -> Self {
        let passes = Pass::ALL.iter().map(|&reason| Self::Pass(reason));
        let drops = Drop::ALL.iter().map(|&reason| Self::Drop(reason));
        let punts = Punt::ALL.iter().map(|&reason| Self::Punt(reason));
        let number = exit.0.saturating_sub(FIRST_PASS) as usize;
        // There is no other number.
        passes
            .chain(drops)
            .chain(punts)
            .nth(number)
            .unwrap_or(Self::Drop(Drop::NotReady))
    }
}

impl From<Result<Way, Exit>> for Verdict {
    #[inline(always)]
    fn from(decision: Result<Way, Exit>) -> Self {
        match decision {
            Ok(Way::Transmit) => Self::Transmit,
            Ok(Way::Redirect(interface)) => Self::Redirect(interface),
            Err(exit) => exit.into(),
        }
    }
}

impl Verdict {
    /// The number of the counter it falls under, below [`VERDICTS`].
    #[must_use]
    pub fn counter(self) -> usize {
        match self {
            Self::Transmit => Way::Transmit.counter(),
            Self::Redirect(interface) => Way::Redirect(interface).counter(),
            Self::Pass(reason) => Exit::from(reason).counter(),
            Self::Drop(reason) => Exit::from(reason).counter(),
            Self::Punt(reason) => Exit::from(reason).counter(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_a_counter_of_its_own() {
        let mut seen = [false; VERDICTS];
        let passes = Pass::ALL.iter().map(|&reason| Verdict::Pass(reason));
        let drops = Drop::ALL.iter().map(|&reason| Verdict::Drop(reason));
        let punts = Punt::ALL.iter().map(|&reason| Verdict::Punt(reason));
        for verdict in [Verdict::Transmit, Verdict::Redirect(7)]
            .into_iter()
            .chain(passes)
            .chain(drops)
            .chain(punts)
        {
            assert!(!seen[verdict.counter()], "{verdict:?}");
            seen[verdict.counter()] = true;
        }
        assert!(seen.iter().all(|&seen| seen));
    }

    #[test]
    fn an_exit_keeps_its_reason() {
        for &reason in Pass::ALL {
            let exit = Exit::from(reason);
            assert_eq!(Verdict::from(exit), Verdict::Pass(reason));
            assert!(!exit.is_drop());
            assert_eq!(Exit::decode(Exit::encode(Err(exit))), Err(exit));
        }
        for &reason in Drop::ALL {
            let exit = Exit::from(reason);
            assert_eq!(Verdict::from(exit), Verdict::Drop(reason));
            assert!(exit.is_drop());
            assert_eq!(exit.is_told(), reason.is_told());
            assert_eq!(Exit::decode(Exit::encode(Err(exit))), Err(exit));
        }
        assert_eq!(Exit::decode(Exit::encode(Ok(()))), Ok(()));
    }
}
