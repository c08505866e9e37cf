//! What differs, and why.

use super::world::{
    ALL, MASQUERADED, MASQUERADED4, MASQUERADED6, PLAIN, PLAIN4, PLAIN6, V4, V6, World,
};

/// Why something differs.
pub struct Reason {
    pub because: &'static str,
    pub differences: &'static [Difference],
}

/// What comes out of the box in steps of a sequence, as text.
pub struct Difference {
    pub sequence: &'static str,
    pub steps: &'static [&'static str],
    pub worlds: fn(World) -> bool,
    pub balancerd: &'static [&'static str],
    pub netfilter: &'static [&'static str],
}

impl Difference {
    pub fn applies(&self, sequence: &str, step: &str, world: World) -> bool {
        self.sequence == sequence && self.steps.contains(&step) && (self.worlds)(world)
    }
}

pub const REASONS: &[Reason] = &[
    Reason {
        because: "netfilter takes segments that cannot be right for invalid and does not translate them: they are the \
             box's own, which resets connections that are well, or go on with the backend's own address. balancerd \
             sends them on, and nothing comes of them: it is for the ends to judge them, and to answer (RFC 9293, \
             sections 3.10.7.3 and 3.10.7.4; RFC 5961, sections 3 to 5 and 9.3)",
        differences: &[
            Difference {
                sequence: "the SYN-ACK acknowledges something else",
                steps: &["SYN-ACK"],
                worlds: MASQUERADED,
                balancerd: &["client's side: TCP SA service > client, 0 ack 1048577, 0 bytes"],
                netfilter: &["backend's side: TCP R peer > backend, 1048577, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "the SYN-ACK acknowledges something else",
                steps: &["SYN-ACK"],
                worlds: PLAIN,
                balancerd: &["client's side: TCP SA service > client, 0 ack 1048577, 0 bytes"],
                netfilter: &["client's side: TCP SA backend > client, 0 ack 1048577, 0 bytes"],
            },
            Difference {
                sequence: "the SYN-ACK acknowledges something else",
                steps: &["client's RST"],
                worlds: ALL,
                balancerd: &["backend's side: TCP R peer > backend, 1048577, 0 bytes"],
                netfilter: &[],
            },
            Difference {
                sequence: "a RST out of the window",
                steps: &["client's RST"],
                worlds: ALL,
                balancerd: &["backend's side: TCP R peer > backend, 1048577, 0 bytes"],
                netfilter: &[],
            },
            Difference {
                sequence: "a RST out of the window",
                steps: &["backend's RST"],
                worlds: MASQUERADED,
                balancerd: &["client's side: TCP R service > client, 1048577, 0 bytes"],
                netfilter: &[],
            },
            Difference {
                sequence: "a RST out of the window",
                steps: &["backend's RST"],
                worlds: PLAIN,
                balancerd: &["client's side: TCP R service > client, 1048577, 0 bytes"],
                netfilter: &["client's side: TCP R backend > client, 1048577, 0 bytes"],
            },
            Difference {
                sequence: "data out of the window",
                steps: &["client's"],
                worlds: ALL,
                balancerd: &["backend's side: TCP PA peer > backend, 1048577 ack 11, 4 bytes"],
                netfilter: &["client's side: TCP R service > client, 11, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "data out of the window",
                steps: &["backend's"],
                worlds: MASQUERADED,
                balancerd: &["client's side: TCP PA service > client, 1048577 ack 11, 4 bytes"],
                netfilter: &["backend's side: TCP R peer > backend, 11, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "data out of the window",
                steps: &["backend's"],
                worlds: PLAIN,
                balancerd: &["client's side: TCP PA service > client, 1048577 ack 11, 4 bytes"],
                netfilter: &["client's side: TCP PA backend > client, 1048577 ack 11, 4 bytes"],
            },
            Difference {
                sequence: "data is acknowledged that was not sent",
                steps: &["client's"],
                worlds: ALL,
                balancerd: &["backend's side: TCP PA peer > backend, 11 ack 1048577, 4 bytes"],
                netfilter: &["client's side: TCP R service > client, 1048577, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "data is acknowledged that was not sent",
                steps: &["backend's"],
                worlds: MASQUERADED,
                balancerd: &["client's side: TCP PA service > client, 11 ack 1048577, 4 bytes"],
                netfilter: &["backend's side: TCP R peer > backend, 1048577, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "data is acknowledged that was not sent",
                steps: &["backend's"],
                worlds: PLAIN,
                balancerd: &["client's side: TCP PA service > client, 11 ack 1048577, 4 bytes"],
                netfilter: &["client's side: TCP PA backend > client, 11 ack 1048577, 4 bytes"],
            },
            Difference {
                sequence: "a SYN in a connection",
                steps: &["backend's"],
                worlds: MASQUERADED,
                balancerd: &["client's side: TCP S service > client, 1048576, 0 bytes"],
                netfilter: &[
                    "backend's side: TCP RA peer > backend, none ack 1048577, 0 bytes, ttl 64",
                ],
            },
            Difference {
                sequence: "a SYN in a connection",
                steps: &["backend's"],
                worlds: PLAIN,
                balancerd: &["client's side: TCP S service > client, 1048576, 0 bytes"],
                netfilter: &["client's side: TCP S backend > client, 1048576, 0 bytes"],
            },
            Difference {
                sequence: "a FIN out of the window",
                steps: &["client's FIN"],
                worlds: ALL,
                balancerd: &["backend's side: TCP FA peer > backend, 1048577 ack 11, 0 bytes"],
                netfilter: &["client's side: TCP R service > client, 11, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "a FIN out of the window",
                steps: &["backend's FIN"],
                worlds: MASQUERADED,
                balancerd: &["client's side: TCP FA service > client, 1048577 ack 11, 0 bytes"],
                netfilter: &["backend's side: TCP R peer > backend, 11, 0 bytes, ttl 64"],
            },
            Difference {
                sequence: "a FIN out of the window",
                steps: &["backend's FIN"],
                worlds: PLAIN,
                balancerd: &["client's side: TCP FA service > client, 1048577 ack 11, 0 bytes"],
                netfilter: &["client's side: TCP FA backend > client, 1048577 ack 11, 0 bytes"],
            },
            Difference {
                sequence: "control bits that do not go together, in a connection",
                steps: &["none"],
                worlds: ALL,
                balancerd: &["backend's side: TCP - peer > backend, 11, 0 bytes"],
                netfilter: &[
                    "client's side: TCP RA service > client, none ack 11, 0 bytes, ttl 64",
                ],
            },
            Difference {
                sequence: "control bits that do not go together, in a connection",
                steps: &["FIN, PSH and URG"],
                worlds: ALL,
                balancerd: &["backend's side: TCP FPU peer > backend, 11, 0 bytes"],
                netfilter: &[
                    "client's side: TCP RA service > client, none ack 12, 0 bytes, ttl 64",
                ],
            },
            Difference {
                sequence: "control bits that do not go together, in a connection",
                steps: &["SYN and FIN"],
                worlds: ALL,
                balancerd: &["backend's side: TCP FS peer > backend, 10, 0 bytes"],
                netfilter: &[
                    "client's side: TCP RA service > client, none ack 12, 0 bytes, ttl 64",
                ],
            },
            Difference {
                sequence: "control bits that do not go together, in a connection",
                steps: &["data without ACK"],
                worlds: ALL,
                balancerd: &["backend's side: TCP P peer > backend, 11, 4 bytes"],
                netfilter: &[
                    "client's side: TCP RA service > client, none ack 15, 0 bytes, ttl 64",
                ],
            },
        ],
    },
    Reason {
        because: "netfilter takes a segment without a connection for one of a connection that is older than itself \
             (nf_conntrack_tcp_loose), and picks a backend. balancerd refuses it (RFC 9293, section 3.10.7.1): \
             another backend would do so too",
        differences: &[
            Difference {
                sequence: "segments without a connection",
                steps: &["client's ACK"],
                worlds: ALL,
                balancerd: &["client's side: TCP R service > client, 1, 0 bytes, ttl 64"],
                netfilter: &["backend's side: TCP A peer > backend, 1 ack 1, 0 bytes"],
            },
            Difference {
                sequence: "segments without a connection",
                steps: &["client's data"],
                worlds: ALL,
                balancerd: &["client's side: TCP R service > client+1, 1, 0 bytes, ttl 64"],
                netfilter: &["backend's side: TCP PA peer+1 > backend, 1 ack 1, 4 bytes"],
            },
        ],
    },
    Reason {
        because: "netfilter verifies checksums (nf_conntrack_checksum), and what is wrong is not translated: the box's own \
             stack drops it, or it goes on with the backend's own address. balancerd updates checksums by difference \
             (RFC 1624, section 2): they stay wrong by as much, and the receiver drops the packet. RFC 5508, REQ-3 \
             would have ICMP errors dropped here",
        differences: &[
            Difference {
                sequence: "wrong checksums of TCP",
                steps: &["wrong SYN"],
                worlds: ALL,
                balancerd: &["backend's side: TCP S peer > backend, 0, 0 bytes, checksum wrong"],
                netfilter: &[],
            },
            Difference {
                sequence: "wrong checksums of TCP",
                steps: &["client's wrong data"],
                worlds: ALL,
                balancerd: &[
                    "backend's side: TCP PA peer > backend, 11 ack 11, 4 bytes, checksum wrong",
                ],
                netfilter: &[],
            },
            Difference {
                sequence: "wrong checksums of TCP",
                steps: &["backend's wrong data"],
                worlds: MASQUERADED,
                balancerd: &[
                    "client's side: TCP PA service > client, 11 ack 11, 4 bytes, checksum wrong",
                ],
                netfilter: &[],
            },
            Difference {
                sequence: "wrong checksums of TCP",
                steps: &["backend's wrong data"],
                worlds: PLAIN,
                balancerd: &[
                    "client's side: TCP PA service > client, 11 ack 11, 4 bytes, checksum wrong",
                ],
                netfilter: &[
                    "client's side: TCP PA backend > client, 11 ack 11, 4 bytes, checksum wrong",
                ],
            },
            Difference {
                sequence: "wrong checksums of TCP",
                steps: &["client's wrong RST"],
                worlds: ALL,
                balancerd: &["backend's side: TCP R peer > backend, 11, 0 bytes, checksum wrong"],
                netfilter: &[],
            },
            Difference {
                sequence: "wrong checksums of UDP",
                steps: &["wrong question"],
                worlds: ALL,
                balancerd: &["backend's side: UDP peer > backend, 13 bytes, checksum wrong"],
                netfilter: &[],
            },
            Difference {
                sequence: "wrong checksums of UDP",
                steps: &["wrong answer"],
                worlds: MASQUERADED,
                balancerd: &["client's side: UDP service > client, 8 bytes, checksum wrong"],
                netfilter: &[],
            },
            Difference {
                sequence: "wrong checksums of UDP",
                steps: &["wrong answer"],
                worlds: PLAIN,
                balancerd: &["client's side: UDP service > client, 8 bytes, checksum wrong"],
                netfilter: &["client's side: UDP backend > client, 8 bytes, checksum wrong"],
            },
            Difference {
                sequence: "errors about a question",
                steps: &["wrong checksum"],
                worlds: MASQUERADED,
                balancerd: &[
                    "client's side: time exceeded service > client about (UDP client > service, 13 bytes, ttl 63; 21 bytes), checksum wrong",
                ],
                netfilter: &[],
            },
            Difference {
                sequence: "errors about a question",
                steps: &["wrong checksum"],
                worlds: PLAIN,
                balancerd: &[
                    "client's side: time exceeded service > client about (UDP client > service, 13 bytes, ttl 63; 21 bytes), checksum wrong",
                ],
                netfilter: &[
                    "client's side: time exceeded router > client about (UDP client > backend, 13 bytes, ttl 63; 21 bytes), checksum wrong",
                ],
            },
            Difference {
                sequence: "fragments of a wrong checksum",
                steps: &["question"],
                worlds: ALL,
                balancerd: &[
                    "backend's side: UDP peer > backend, 1000 bytes, bytes 0 to 400 and more",
                    "backend's side: fragment of 17 peer > backend, bytes 400 to 800 and more",
                    "backend's side: fragment of 17 peer > backend, bytes 800 to 1008",
                ],
                netfilter: &[],
            },
        ],
    },
    Reason {
        because: "the kernel's errors may be cut; balancerd's, which are short, may not, so that they need no identification \
             (RFC 6864, section 4.1)",
        differences: &[
            Difference {
                sequence: "TTLs",
                steps: &["first with TTL 1", "question with TTL 1"],
                worlds: V4,
                balancerd: &[
                    "client's side: time exceeded service > client about (UDP client > service, 13 bytes, ttl 1; 21 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "client's side: time exceeded service > client about (UDP client > service, 13 bytes, ttl 1; 21 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "TTLs",
                steps: &["answer with TTL 1"],
                worlds: PLAIN4,
                balancerd: &[
                    "backend's side: time exceeded box > backend about (UDP backend > peer, 8 bytes, ttl 1; 16 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "backend's side: time exceeded box > backend about (UDP backend > peer, 8 bytes, ttl 1; 16 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "TTLs",
                steps: &["answer with TTL 1"],
                worlds: MASQUERADED4,
                balancerd: &[
                    "backend's side: time exceeded peer > backend about (UDP backend > peer, 8 bytes, ttl 1; 16 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "backend's side: time exceeded peer > backend about (UDP backend > peer, 8 bytes, ttl 1; 16 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "TTLs",
                steps: &["question with TTL 0"],
                worlds: V4,
                balancerd: &[
                    "client's side: time exceeded service > client about (UDP client > service, 13 bytes, ttl 0; 21 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "client's side: time exceeded service > client about (UDP client > service, 13 bytes, ttl 0; 21 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "TTLs of TCP",
                steps: &["SYN with TTL 1"],
                worlds: V4,
                balancerd: &[
                    "client's side: time exceeded service > client about (TCP S client > service, 0, 0 bytes, ttl 1; 20 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "client's side: time exceeded service > client about (TCP S client > service, 0, 0 bytes, ttl 1; 20 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "TTLs of TCP",
                steps: &["SYN-ACK with TTL 1"],
                worlds: PLAIN4,
                balancerd: &[
                    "backend's side: time exceeded box > backend about (TCP SA backend > peer, 0 ack 1, 0 bytes, ttl 1; 20 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "backend's side: time exceeded box > backend about (TCP SA backend > peer, 0 ack 1, 0 bytes, ttl 1; 20 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "TTLs of TCP",
                steps: &["SYN-ACK with TTL 1"],
                worlds: MASQUERADED4,
                balancerd: &[
                    "backend's side: time exceeded peer > backend about (TCP SA backend > peer, 0 ack 1, 0 bytes, ttl 1; 20 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "backend's side: time exceeded peer > backend about (TCP SA backend > peer, 0 ack 1, 0 bytes, ttl 1; 20 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "longer than the backend's link takes",
                steps: &["question"],
                worlds: V4,
                balancerd: &[
                    "client's side: too big for 1400 service > client about (UDP client > service, 1400 bytes, ttl 64; 528 bytes), ttl 64, class 0xc0",
                ],
                netfilter: &[
                    "client's side: too big for 1400 service > client about (UDP client > service, 1400 bytes, ttl 64; 528 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
        ],
    },
    Reason {
        because: "source_ports begins at 1024, so a client's port below becomes another (RFC 4787, REQ-3 (a) would have \
             one below)",
        differences: &[Difference {
            sequence: "a client's port below 1024",
            steps: &["question"],
            worlds: MASQUERADED,
            balancerd: &["backend's side: UDP peer+19 > backend, 4 bytes"],
            netfilter: &["backend's side: UDP peer:1000 > backend, 4 bytes"],
        }],
    },
    Reason {
        because: "an error quotes eight bytes of the transport header at least (RFC 792), and one with less is none about \
             a connection to balancerd: it is the kernel's, who routes it as it is. netfilter needs the ports only to \
             find the connection, and drops what it cannot translate then",
        differences: &[
            Difference {
                sequence: "errors about a question",
                steps: &["seven bytes quoted"],
                worlds: PLAIN,
                balancerd: &[
                    "client's side: port unreachable router > client about (protocol 17 client > backend, 7 bytes, ttl 63; 7 bytes)",
                ],
                netfilter: &[],
            },
            Difference {
                sequence: "errors about a question",
                steps: &["ports quoted"],
                worlds: PLAIN,
                balancerd: &[
                    "client's side: port unreachable router > client about (protocol 17 client > backend, 4 bytes, ttl 63; 4 bytes)",
                ],
                netfilter: &[],
            },
        ],
    },
    Reason {
        because: "balancerd lets errors come from whom the receiver talks to, from either side; netfilter translates their \
             source only where there is source NAT. RFC 5508, REQ-4 leaves that open",
        differences: &[
            Difference {
                sequence: "errors about an answer",
                steps: &["host unreachable"],
                worlds: PLAIN,
                balancerd: &[
                    "backend's side: host unreachable peer > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
                netfilter: &[
                    "backend's side: host unreachable router > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
            },
            Difference {
                sequence: "errors about an answer",
                steps: &["too big"],
                worlds: PLAIN,
                balancerd: &[
                    "backend's side: too big for 1500 peer > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
                netfilter: &[
                    "backend's side: too big for 1500 router > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
            },
            Difference {
                sequence: "errors about an answer",
                steps: &["time exceeded"],
                worlds: PLAIN,
                balancerd: &[
                    "backend's side: time exceeded peer > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
                netfilter: &[
                    "backend's side: time exceeded router > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
            },
            Difference {
                sequence: "errors about an answer",
                steps: &["parameter problem"],
                worlds: PLAIN4,
                balancerd: &[
                    "backend's side: parameter problem 0 at [0, 0, 5, 220] peer > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
                netfilter: &[
                    "backend's side: parameter problem 0 at [0, 0, 5, 220] router > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
            },
            Difference {
                sequence: "errors about an answer",
                steps: &["parameter problem"],
                worlds: PLAIN6,
                balancerd: &[
                    "backend's side: parameter problem 1 at [0, 0, 5, 220] peer > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
                netfilter: &[
                    "backend's side: parameter problem 1 at [0, 0, 5, 220] router > backend about (UDP backend > peer, 8 bytes, ttl 63; 16 bytes)",
                ],
            },
            Difference {
                sequence: "errors about segments",
                steps: &["backend's data too big"],
                worlds: PLAIN,
                balancerd: &[
                    "backend's side: too big for 1500 peer > backend about (TCP PA backend > peer, 11 ack 11, 4 bytes, ttl 63; 24 bytes)",
                ],
                netfilter: &[
                    "backend's side: too big for 1500 router > backend about (TCP PA backend > peer, 11 ack 11, 4 bytes, ttl 63; 24 bytes)",
                ],
            },
            Difference {
                sequence: "errors about segments",
                steps: &["backend's data too big, eight bytes quoted"],
                worlds: PLAIN,
                balancerd: &[
                    "backend's side: too big for 1500 peer > backend about (TCP backend > peer, ttl 63; 8 bytes)",
                ],
                netfilter: &[
                    "backend's side: too big for 1500 router > backend about (TCP backend > peer, ttl 63; 8 bytes)",
                ],
            },
            Difference {
                sequence: "errors about segments",
                steps: &["client unreachable"],
                worlds: PLAIN,
                balancerd: &[
                    "backend's side: host unreachable peer > backend about (TCP backend > peer, ttl 63; 8 bytes)",
                ],
                netfilter: &[
                    "backend's side: host unreachable router > backend about (TCP backend > peer, ttl 63; 8 bytes)",
                ],
            },
        ],
    },
    Reason {
        because: "nobody is to act on a source quench (RFC 6633, section 3), and a redirect is for the next hop only (RFC \
             1812, section 4.3.3.2): balancerd takes neither for an error about a connection, so they are the \
             kernel's, who routes what is not to itself. netfilter translates the first and drops the second",
        differences: &[
            Difference {
                sequence: "source quench and redirect",
                steps: &["source quench"],
                worlds: MASQUERADED4,
                balancerd: &[],
                netfilter: &[
                    "client's side: ICMP 4/0 service > client about (UDP client > service, 13 bytes, ttl 63; 21 bytes)",
                ],
            },
            Difference {
                sequence: "source quench and redirect",
                steps: &["source quench"],
                worlds: PLAIN4,
                balancerd: &[
                    "client's side: ICMP 4/0 router > client about (UDP client > backend, 13 bytes, ttl 63; 21 bytes)",
                ],
                netfilter: &[
                    "client's side: ICMP 4/0 service > client about (UDP client > service, 13 bytes, ttl 63; 21 bytes)",
                ],
            },
            Difference {
                sequence: "source quench and redirect",
                steps: &["redirect"],
                worlds: PLAIN4,
                balancerd: &[
                    "client's side: ICMP 5/1 router > client about (UDP client > backend, 13 bytes, ttl 63; 21 bytes)",
                ],
                netfilter: &[],
            },
        ],
    },
    Reason {
        because: "netfilter puts datagrams together before it looks at them, and cuts them again: of one that is not \
             complete, or has fragments that overlap, nothing goes on (RFC 5722, section 4). balancerd sends each \
             fragment on when those before it have gone on, so nothing is kept but what came early; what overlaps is \
             dropped",
        differences: &[
            Difference {
                sequence: "fragments of a datagram that is not complete",
                steps: &["the first"],
                worlds: ALL,
                balancerd: &[
                    "backend's side: UDP peer > backend, 1000 bytes, bytes 0 to 400 and more",
                ],
                netfilter: &[],
            },
            Difference {
                sequence: "fragments of a datagram that is not complete",
                steps: &["the second"],
                worlds: ALL,
                balancerd: &[
                    "backend's side: fragment of 17 peer > backend, bytes 400 to 800 and more",
                ],
                netfilter: &[],
            },
            Difference {
                sequence: "fragments of a datagram that is not complete",
                steps: &["the last"],
                worlds: ALL,
                balancerd: &["backend's side: fragment of 17 peer > backend, bytes 800 to 1008"],
                netfilter: &[
                    "backend's side: UDP peer > backend, 1000 bytes, bytes 0 to 400 and more",
                    "backend's side: fragment of 17 peer > backend, bytes 400 to 800 and more",
                    "backend's side: fragment of 17 peer > backend, bytes 800 to 1008",
                ],
            },
            Difference {
                sequence: "fragments that overlap",
                steps: &["by some bytes"],
                worlds: ALL,
                balancerd: &[
                    "backend's side: UDP peer > backend, 1000 bytes, bytes 0 to 400 and more",
                ],
                netfilter: &[],
            },
        ],
    },
    Reason {
        because: "an identification is not used again while a datagram with it may be under way (RFC 6864): balancerd takes \
             fragments with one of a datagram that has just gone on for parts of that, and drops them, but for a \
             first one",
        differences: &[Difference {
            sequence: "an identification is used again at once",
            steps: &["the last one first"],
            worlds: ALL,
            balancerd: &["backend's side: UDP peer > backend, 1000 bytes, bytes 0 to 400 and more"],
            netfilter: &[
                "backend's side: UDP peer > backend, 1000 bytes, bytes 0 to 400 and more",
                "backend's side: fragment of 17 peer > backend, bytes 400 to 800 and more",
                "backend's side: fragment of 17 peer > backend, bytes 800 to 1008",
            ],
        }],
    },
    Reason {
        because: "a first fragment without the whole transport header is dropped (RFC 1858, section 3; RFC 7112, section \
             5), and its sender is not told; IPv4 of the kernel puts it together",
        differences: &[
            Difference {
                sequence: "a tiny first fragment",
                steps: &["SYN"],
                worlds: V4,
                balancerd: &[],
                netfilter: &[
                    "backend's side: TCP peer > backend, bytes 0 to 16 and more",
                    "backend's side: fragment of 6 peer > backend, bytes 16 to 24",
                ],
            },
            Difference {
                sequence: "a tiny first fragment",
                steps: &["SYN"],
                worlds: V6,
                balancerd: &[],
                netfilter: &[
                    "client's side: parameter problem 3 at [0, 0, 0, 0] service > client about (TCP client > service, bytes 0 to 8 and more, ttl 64; 8 bytes), ttl 64",
                ],
            },
        ],
    },
    Reason {
        because: "no extension header is deleted (RFC 8200, section 4); netfilter takes the fragment header off what is \
             whole",
        differences: &[Difference {
            sequence: "an atomic fragment",
            steps: &["question"],
            worlds: V6,
            balancerd: &["backend's side: UDP peer > backend, 13 bytes, bytes 0 to 21"],
            netfilter: &["backend's side: UDP peer > backend, 13 bytes"],
        }],
    },
    Reason {
        because: "hop-by-hop options need not be looked at (RFC 8200, section 4.3); the kernel looks",
        differences: &[Difference {
            sequence: "extension headers",
            steps: &["an unknown hop-by-hop option, to be told of"],
            worlds: V6,
            balancerd: &["backend's side: UDP peer+3 > backend, 13 bytes, 8 bytes of extensions"],
            netfilter: &[
                "client's side: parameter problem 2 at [0, 0, 0, 42] service > client about (UDP client+3 > service, 13 bytes, ttl 64, 8 bytes of extensions; 21 bytes), ttl 64",
            ],
        }],
    },
    Reason {
        because: "a type 0 routing header is dropped, used up or not, as a source route (RFC 5095); the kernel steps over \
             one that is used up",
        differences: &[Difference {
            sequence: "extension headers",
            steps: &["a used-up routing header of type 0"],
            worlds: V6,
            balancerd: &[],
            netfilter: &["backend's side: UDP peer+6 > backend, 13 bytes, 8 bytes of extensions"],
        }],
    },
    Reason {
        because: "a packet with segments left is not where it goes yet: balancerd leaves it to the kernel, which says so \
             (RFC 8200, section 4.4); netfilter does not look",
        differences: &[Difference {
            sequence: "extension headers",
            steps: &["a routing header of type 2 with a segment left"],
            worlds: V6,
            balancerd: &[
                "client's side: parameter problem 0 at [0, 0, 0, 42] service > client about (UDP client+5 > service, 13 bytes, ttl 64, 24 bytes of extensions; 21 bytes), ttl 64",
            ],
            netfilter: &["backend's side: UDP peer+5 > backend, 13 bytes, 24 bytes of extensions"],
        }],
    },
    Reason {
        because: "six extension headers are walked (RFC 8504, section 5.3 allows for a limit)",
        differences: &[Difference {
            sequence: "extension headers",
            steps: &["seven of them"],
            worlds: V6,
            balancerd: &[],
            netfilter: &["backend's side: UDP peer+8 > backend, 13 bytes, 56 bytes of extensions"],
        }],
    },
    Reason {
        because: "the kernel fills in route and time (RFC 1812, sections 5.3.13.5 and 5.3.13.6); balancerd leaves options \
             as they came",
        differences: &[
            Difference {
                sequence: "IPv4 options",
                steps: &["record route"],
                worlds: V4,
                balancerd: &[
                    "backend's side: UDP peer+1 > backend, 13 bytes, options [07, 07, 04, 00, 00, 00, 00, 00]",
                ],
                netfilter: &[
                    "backend's side: UDP peer+1 > backend, 13 bytes, options [07, 07, 08, 0a, 00, 01, 01, 00]",
                ],
            },
            Difference {
                sequence: "IPv4 options",
                steps: &["timestamp"],
                worlds: V4,
                balancerd: &[
                    "backend's side: UDP peer+2 > backend, 13 bytes, options [44, 08, 05, 00, 00, 00, 00, 00]",
                ],
                netfilter: &[
                    "backend's side: UDP peer+2 > backend, 13 bytes, options [44, 08, 09, 00, 01, 01, 01, 01]",
                ],
            },
        ],
    },
    Reason {
        because: "nobody is told of malformed packets; the kernel tells (RFC 1812, section 4.3.3.5)",
        differences: &[
            Difference {
                sequence: "IPv4 options",
                steps: &["an option of length 0"],
                worlds: V4,
                balancerd: &[],
                netfilter: &[
                    "client's side: parameter problem 0 at [20, 0, 0, 0] service > client about (UDP client+7 > service, 13 bytes, ttl 64, options [07, 00, 00, 00]; 21 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "IPv4 options",
                steps: &["an option beyond the header"],
                worlds: V4,
                balancerd: &[],
                netfilter: &[
                    "client's side: parameter problem 0 at [20, 0, 0, 0] service > client about (UDP client+8 > service, 13 bytes, ttl 64, options [07, 28, 04, 00]; 21 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
        ],
    },
    Reason {
        because: "what is behind the packet is the frame's padding (RFC 894): it does not matter whether it goes on",
        differences: &[
            Difference {
                sequence: "malformed IPv4 headers",
                steps: &["bytes behind the packet"],
                worlds: V4,
                balancerd: &[
                    "backend's side: UDP peer+7 > backend, 13 bytes, 9 bytes behind the packet",
                ],
                netfilter: &["backend's side: UDP peer+7 > backend, 13 bytes"],
            },
            Difference {
                sequence: "malformed IPv6 headers",
                steps: &["bytes behind the packet"],
                worlds: V6,
                balancerd: &[
                    "backend's side: UDP peer+3 > backend, 13 bytes, 9 bytes behind the packet",
                ],
                netfilter: &["backend's side: UDP peer+3 > backend, 13 bytes"],
            },
        ],
    },
    Reason {
        because: "no host has such an address (RFC 1812, section 5.3.7), or it is the receiver's own: balancerd drops it, \
             the kernel does not",
        differences: &[
            Difference {
                sequence: "addresses that nobody can have",
                steps: &["reserved"],
                worlds: PLAIN4,
                balancerd: &[],
                netfilter: &["backend's side: UDP 240.0.0.1:7600 > backend, 4 bytes"],
            },
            Difference {
                sequence: "addresses that nobody can have",
                steps: &["reserved"],
                worlds: MASQUERADED4,
                balancerd: &[],
                netfilter: &["backend's side: UDP peer > backend, 4 bytes"],
            },
            Difference {
                sequence: "addresses that nobody can have",
                steps: &["the service's own"],
                worlds: MASQUERADED6,
                balancerd: &[],
                netfilter: &["backend's side: UDP peer+19 > backend, 4 bytes"],
            },
            Difference {
                sequence: "addresses that nobody can have",
                steps: &["the service's own"],
                worlds: PLAIN6,
                balancerd: &[],
                netfilter: &["backend's side: UDP service+0 > backend, 4 bytes"],
            },
        ],
    },
    Reason {
        because: "balancerd does not check source addresses against the routes (RFC 1812, section 5.3.8); the kernel takes \
             none for its own over IPv4",
        differences: &[
            Difference {
                sequence: "an address of the box as the source",
                steps: &["question"],
                worlds: PLAIN4,
                balancerd: &["backend's side: UDP box+0 > backend, 4 bytes"],
                netfilter: &[],
            },
            Difference {
                sequence: "an address of the box as the source",
                steps: &["question"],
                worlds: MASQUERADED4,
                balancerd: &["backend's side: UDP peer > backend, 4 bytes"],
                netfilter: &[],
            },
        ],
    },
    Reason {
        because: "nobody can answer port 0 (RFC 6335, section 6): balancerd drops what has it, the kernel takes it for any \
             other",
        differences: &[
            Difference {
                sequence: "port 0",
                steps: &["UDP from it"],
                worlds: ALL,
                balancerd: &[],
                netfilter: &["backend's side: UDP peer:0 > backend, 4 bytes"],
            },
            Difference {
                sequence: "port 0",
                steps: &["UDP to it"],
                worlds: V6,
                balancerd: &[],
                netfilter: &[
                    "client's side: port unreachable service > client about (UDP client > service:0, 4 bytes, ttl 64; 12 bytes), ttl 64",
                ],
            },
            Difference {
                sequence: "port 0",
                steps: &["UDP to it"],
                worlds: V4,
                balancerd: &[],
                netfilter: &[
                    "client's side: port unreachable service > client about (UDP client > service:0, 4 bytes, ttl 64; 12 bytes), ttl 64, may be cut, class 0xc0",
                ],
            },
            Difference {
                sequence: "port 0",
                steps: &["TCP from it"],
                worlds: ALL,
                balancerd: &[],
                netfilter: &["backend's side: TCP S peer:0 > backend, 0, 0 bytes"],
            },
            Difference {
                sequence: "port 0",
                steps: &["TCP to it"],
                worlds: ALL,
                balancerd: &[],
                netfilter: &[
                    "client's side: TCP RA service:0 > client+1, none ack 1, 0 bytes, ttl 64",
                ],
            },
        ],
    },
];
