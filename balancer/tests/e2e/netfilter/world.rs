//! Who is there, and how they are called in all worlds.

use std::net::IpAddr;

/// Where a frame is sent or heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Backend,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client's side",
            Self::Backend => "backend's side",
        }
    }
}

/// An address family, and whether the backend sees the box or the client itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    Masqueraded4,
    Plain4,
    Masqueraded6,
    Plain6,
}

/// Those that there are.
pub const WORLDS: [World; 4] = [
    World::Masqueraded4,
    World::Plain4,
    World::Masqueraded6,
    World::Plain6,
];

/// Which of them something is for.
pub const ALL: fn(World) -> bool = |_| true;
pub const V4: fn(World) -> bool = World::is_ipv4;
pub const V6: fn(World) -> bool = |world| !world.is_ipv4();
pub const MASQUERADED: fn(World) -> bool = World::is_masqueraded;
pub const PLAIN: fn(World) -> bool = |world| !world.is_masqueraded();
pub const MASQUERADED4: fn(World) -> bool = |world| world == World::Masqueraded4;
pub const PLAIN4: fn(World) -> bool = |world| world == World::Plain4;
pub const MASQUERADED6: fn(World) -> bool = |world| world == World::Masqueraded6;
pub const PLAIN6: fn(World) -> bool = |world| world == World::Plain6;

/// How many ports of the client a sequence has.
pub const PORTS: u16 = 20;

impl World {
    pub const fn is_ipv4(self) -> bool {
        matches!(self, Self::Masqueraded4 | Self::Plain4)
    }

    pub const fn is_masqueraded(self) -> bool {
        matches!(self, Self::Masqueraded4 | Self::Masqueraded6)
    }

    fn address(self, four: &str, six: &str) -> IpAddr {
        let text = if self.is_ipv4() { four } else { six };
        text.parse().unwrap()
    }

    pub fn client(self) -> IpAddr {
        self.address("192.0.2.1", "2001:db8::1")
    }

    /// Another client on the same link.
    pub fn other(self) -> IpAddr {
        self.address("192.0.2.2", "2001:db8::2")
    }

    pub fn service(self) -> IpAddr {
        self.address("192.0.2.10", "2001:db8::10")
    }

    /// The box, from the backend's side.
    pub fn inside(self) -> IpAddr {
        self.address("10.0.1.1", "2001:db8:1::1")
    }

    pub fn backend(self) -> IpAddr {
        self.address("10.0.1.3", "2001:db8:1::3")
    }

    /// Whom the backend talks to.
    pub fn peer(self) -> IpAddr {
        if self.is_masqueraded() {
            self.inside()
        } else {
            self.client()
        }
    }

    /// A router on the way to this side.
    pub fn router(self, side: Side) -> IpAddr {
        match side {
            Side::Client => self.address("203.0.113.1", "2001:db8:ffff::1"),
            Side::Backend => self.address("10.0.9.1", "2001:db8:9::1"),
        }
    }

    pub const fn service_port(self) -> u16 {
        if self.is_masqueraded() { 80 } else { 81 }
    }

    pub const fn backend_port(self) -> u16 {
        8000 + self.service_port()
    }

    /// What an end is called where a frame is heard. `first` is the first port of the sequence's client.
    pub fn name(self, side: Side, address: IpAddr, port: Option<u16>, first: u16) -> String {
        let name = if address == self.service() {
            "service"
        } else if address == self.backend() {
            "backend"
        } else if address == self.peer() && side == Side::Backend {
            "peer"
        } else if address == self.client() {
            "client"
        } else if address == self.other() {
            "other"
        } else if address == self.inside() {
            "box"
        } else if Side::BOTH.map(|side| self.router(side)).contains(&address) {
            "router"
        } else {
            return match port {
                Some(port) => format!("{address}:{port}"),
                None => address.to_string(),
            };
        };
        match port {
            None => name.to_owned(),
            Some(port) if port == first && matches!(name, "client" | "peer") => name.to_owned(),
            Some(port) if port == self.service_port() && name == "service" => name.to_owned(),
            Some(port) if port == self.backend_port() && name == "backend" => name.to_owned(),
            Some(port) if (first..first + PORTS).contains(&port) => {
                format!("{name}+{}", port - first)
            }
            Some(port) => format!("{name}:{port}"),
        }
    }
}
