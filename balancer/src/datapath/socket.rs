//! `AF_XDP` sockets: one on a receive queue of an interface.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use xdp::nic::NicIndex;
use xdp::slab::{HeapSlab, Slab as _};
use xdp::socket::{XdpSocket, XdpSocketBuilder};
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{CompletionRing, FillRing, Packet, RingConfigBuilder, RxRing, TxRing, Umem};

use super::batch::Batch;

/// The room before each frame, where metadata is.
const HEADROOM: u32 = 32;

/// How many frames the kernel sends at a time when it copies, unless it was [asked for more](Socket::send_at_once).
const SENT_AT_ONCE: usize = 32;

/// The longest packet that a socket takes, from the network header on, behind two VLAN tags.
pub const LONGEST: u32 = 3808 - 14 - 8;

/// How large a socket is, and what it may do.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many frames may wait to be read, and as many to be sent. There is memory for twice as many: frames of 4 KiB, of which
    /// 3,808 bytes are there for the packet; the kernel drops what is longer.
    pub ring: u32,
    /// Whether the driver may put what it receives into the socket's memory, if it can. Else the kernel copies.
    pub zero_copy: bool,
}

/// A socket. The rings go before the socket does, and all of them before the memory.
pub struct Socket {
    fill: FillRing,
    receive: RxRing,
    /// `None` of a queue that only receives.
    send: Option<TxRing>,
    completion: CompletionRing,
    descriptor: XdpSocket,
    /// What is to be sent.
    queued: HeapSlab,
    umem: Umem,
    size: Size,
    /// How many frames the fill ring is to be given.
    owed: usize,
    /// How many frames the kernel has to send, or has not said that they are sent.
    pending: usize,
    /// Whether the interface is.
    is_gone: bool,
}

/// Where the frames of a socket's memory are. Each is in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// All.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// The kernel has them for what comes, or they have come and were not taken yet.
    pub receiving: u64,
    /// They wait to be sent, or the kernel has not said that they are.
    pub sending: u64,
}

impl Frames {
    /// How many are in no place; less than 0: so many are in two.
    #[must_use]
    pub fn missing(&self) -> i64 {
        let placed = self.free + self.receiving + self.sending;
        self.total.cast_signed() - placed.cast_signed()
    }
}

impl std::ops::AddAssign for Frames {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.free += other.free;
        self.receiving += other.receiving;
        self.sending += other.sending;
    }
}

impl Socket {
    /// Opens one on a receive queue of an interface. It sends by the transmit queue of that number, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(interface: u32, queue: u32, size: Size) -> io::Result<Self> {
        match Self::bind(interface, queue, size, size.ring) {
            Err(error) if queue > 0 && error.raw_os_error() == Some(libc::EINVAL) => {
                Self::bind(interface, queue, size, 0)
            }
            opened => opened,
        }
    }

    fn bind(interface: u32, queue: u32, size: Size, tx_count: u32) -> io::Result<Self> {
        let Size { ring, zero_copy } = size;
        let config = UmemCfgBuilder {
            frame_size: FrameSize::FourK,
            head_room: HEADROOM,
            frame_count: ring * 2,
            ..UmemCfgBuilder::default()
        };
        let mut umem = Umem::map(config.build().map_err(io::Error::other)?)?;
        let rings = RingConfigBuilder {
            rx_count: ring,
            tx_count,
            fill_count: ring,
            completion_count: ring,
        };
        let mut builder = XdpSocketBuilder::new().map_err(refused)?;
        let (rings, mut flags) = builder
            .build_rings(&umem, rings.build().map_err(io::Error::other)?)
            .map_err(refused)?;
        let Some(receive) = rings.rx_ring else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut fill = rings.fill_ring;
        // SAFETY: the memory is kept as long as the socket: see the order of the fields.
        unsafe { fill.enqueue(&mut umem, ring as usize) };
        if !zero_copy {
            flags.force_copy();
        }
        let descriptor = builder
            .bind(NicIndex(interface), queue, flags)
            .map_err(refused)?;
        let socket = Self {
            fill,
            receive,
            send: rings.tx_ring,
            completion: rings.completion_ring,
            descriptor,
            queued: HeapSlab::with_capacity(ring as usize),
            umem,
            size,
            owed: 0,
            pending: 0,
            is_gone: false,
        };
        // What the kernel copies counts until its receiver has it. Without the capability it stays at the default, some hundred.
        let _ = setsockopt(&socket.fd(), sockopt::SndBufForce, &(ring as usize * 4096));
        socket.send_at_once(ring);
        Ok(socket)
    }

    /// Asks the kernel to send so many frames at a time. Before 6.17 it sends [`SENT_AT_ONCE`].
    fn send_at_once(&self, frames: u32) {
        /// Not in `libc` yet.
        const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
        // SAFETY: the option is an integer of 32 bits.
        unsafe {
            libc::setsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const frames).cast(),
                size_of_val(&frames) as libc::socklen_t,
            );
        }
    }

    /// The socket's descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open as long as the socket is.
        unsafe { BorrowedFd::borrow_raw(self.descriptor.as_raw_fd()) }
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// There are too many.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    /// Takes frames that have come, as many as there is room for in `batch`. Each has to be [freed](Self::free) or
    /// [queued](Self::queue_own).
    pub fn take(&mut self, batch: &mut Batch) {
        // SAFETY: whoever takes frames gives them back before the memory goes.
        let count = unsafe { self.receive.recv(&self.umem, batch) };
        self.owed += count;
    }

    /// Gives the memory of a frame back.
    pub fn free(&mut self, packet: Packet) {
        self.umem.free_packet(packet);
    }

    /// Lets the kernel have memory for frames again.
    pub fn refill(&mut self) {
        // As many as were taken: the ring takes all that it is given, or none, for a moment after the kernel has written.
        // SAFETY: the memory is kept as long as the socket.
        self.owed -= unsafe { self.fill.enqueue(&mut self.umem, self.owed) };
    }

    /// Puts a frame with others that are to be sent. Says whether there was room.
    pub fn queue(&mut self, frame: &[u8]) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the packet is sent, or freed, before the memory goes.
        let Some(mut packet) = (unsafe { self.umem.alloc() }) else {
            return false;
        };
        if packet.insert(0, frame).is_err() {
            self.umem.free_packet(packet);
            return false;
        }
        self.queued.push_front(packet);
        true
    }

    /// The same of a frame that came by this socket, without copying it. It is gone if there is no room.
    pub fn queue_own(&mut self, packet: Packet) -> bool {
        if !self.has_room() {
            self.umem.free_packet(packet);
            return false;
        }
        self.queued.push_front(packet);
        true
    }

    /// Whether it can send at all.
    #[must_use]
    pub fn sends(&self) -> bool {
        self.send.is_some()
    }

    /// Whether one more frame can be sent: they have half of the memory, the other is for what comes.
    fn has_room(&self) -> bool {
        let waiting = self.queued.len() + self.pending;
        self.sends() && !self.is_gone && waiting < self.size.ring as usize
    }

    /// Where the frames of its memory are. What was taken and neither freed nor queued is missing.
    #[must_use]
    pub fn frames(&self) -> Frames {
        let ring = u64::from(self.size.ring);
        Frames {
            total: ring * 2,
            free: self.umem.allocatable() as u64,
            receiving: ring - self.owed as u64,
            sending: (self.queued.len() + self.pending) as u64,
        }
    }

    /// Whether there is something to [flush](Self::flush), or memory to be [given back](Self::refill).
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.is_gone && (self.pending > 0 || !self.queued.is_empty() || self.owed > 0)
    }

    /// Sends what was queued, as far as it goes now.
    pub fn flush(&mut self) {
        self.reap();
        // There is room in the ring for all: see `has_room`.
        self.pending += match &mut self.send {
            // SAFETY: the memory is kept as long as the socket.
            Some(send) => unsafe { send.send(&mut self.queued) },
            None => 0,
        };
        if self.pending == 0 || self.is_gone {
            return;
        }
        for _ in 0..=self.pending / SENT_AT_ONCE {
            match self.kick() {
                // So many at a time; or one was lost on the way, or there is no memory for more at the moment.
                Err(Errno::EAGAIN | Errno::EBUSY) => self.reap(),
                Err(Errno::ENXIO) => {
                    self.is_gone = true;
                    break;
                }
                // All are sent; or the interface is down: what stays is sent with the next.
                Ok(()) | Err(_) => break,
            }
        }
        self.reap();
    }

    /// Takes back the memory of what was sent.
    fn reap(&mut self) {
        self.pending -= self
            .completion
            .dequeue(&mut self.umem, self.size.ring as usize);
    }

    /// Has the kernel send what there is.
    fn kick(&self) -> Result<(), Errno> {
        let (nothing, none) = (std::ptr::null(), std::ptr::null());
        // SAFETY: nothing is read from where nothing is.
        let result = unsafe {
            libc::sendto(
                self.descriptor.as_raw_fd(),
                nothing,
                0,
                libc::MSG_DONTWAIT,
                none,
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    /// How many frames there was no room for.
    ///
    /// # Errors
    /// Never, of a socket that is open.
    pub fn overruns(&self) -> io::Result<u64> {
        // SAFETY: it is made of integers, so zeros are one.
        let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::xdp_statistics>() as libc::socklen_t;
        // SAFETY: the structure is as long as it says.
        let result = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(statistics.rx_dropped + statistics.rx_ring_full)
    }
}

/// What the kernel said.
fn refused(error: xdp::socket::SocketError) -> io::Error {
    use xdp::socket::SocketError::{Bind, GetSockOpt, RingMap, SetSockOpt, SocketCreation};
    match error {
        SocketCreation(error) | Bind(error) => error,
        SetSockOpt { inner, .. } | GetSockOpt { inner, .. } | RingMap { inner, .. } => inner,
    }
}
