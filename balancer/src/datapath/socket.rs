//! `AF_XDP` sockets: one on a receive queue of an interface.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use balancer_common::abi::{Link, MAX_SOCKETS};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use xdp::nic::NicIndex;
use xdp::slab::{HeapSlab, Slab};
use xdp::socket::{XdpSocket, XdpSocketBuilder};
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{CompletionRing, FillRing, Packet, RingConfigBuilder, RxRing, TxRing, Umem};

/// The room before each frame, where metadata is.
const HEADROOM: u32 = 32;

/// How many frames the kernel sends at a time when it copies, unless it was [asked for more](Socket::send_at_once).
const SENT_AT_ONCE: usize = 32;

/// How long the kernel may take to be done with a socket that was closed.
const BUSY: Duration = Duration::from_secs(2);

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

/// Frames that were taken from a socket, the first first.
pub struct Batch(HeapSlab);

impl Batch {
    /// With room for so many.
    #[must_use]
    pub fn with_capacity(frames: usize) -> Self {
        Self(HeapSlab::with_capacity(frames))
    }
}

impl Slab for Batch {
    fn available(&self) -> usize {
        self.0.available()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push_front(&mut self, packet: Packet) -> Option<Packet> {
        // The CPU that received it has written it: its headers are on their way while those before it are worked on.
        prefetch(&packet);
        self.0.push_front(packet)
    }

    fn pop_back(&mut self) -> Option<Packet> {
        self.0.pop_back()
    }
}

/// Has the beginning of a frame brought near.
fn prefetch(frame: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it reads nothing; any address will do.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(frame.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
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

/// The sockets of an interface.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Their numbers.
    pub link: Link,
    /// The sockets, in the order of the queues. Who works with them has them too; these keep them open.
    pub sockets: Vec<OwnedFd>,
    /// Why the next queue has none, if there is one.
    pub error: Option<io::Error>,
}

impl Sockets {
    /// These, with numbers that the `others` do not have; `None` when there are too many.
    pub fn number<'a>(mut self, others: impl Iterator<Item = &'a Link>) -> Option<Self> {
        let count = self.sockets.len() as u32;
        self.link = Link {
            first_socket: room(count, others)?,
            sockets: count,
            ..Link::default()
        };
        Some(self)
    }
}

/// Opens sockets for the queues of an interface, without numbers yet, until there is no queue any more.
///
/// # Errors
/// What `open`, which is given the number of a queue, says of the first.
pub fn of_all_queues(
    interface: u32,
    mut open: impl FnMut(u32) -> io::Result<OwnedFd>,
) -> io::Result<Sockets> {
    let mut opened = Sockets::default();
    for queue in 0.. {
        match patiently(|| open(queue)) {
            Ok(socket) => opened.sockets.push(socket),
            Err(error) if queue > 0 && error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) if queue > 0 => {
                tracing::warn!(interface, queue, %error, "no AF_XDP socket for this queue and those behind it");
                opened.error = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Opens a socket as soon as the kernel has done with the one of an earlier daemon, or a worker, that has just ended.
fn patiently(mut open: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    const A_WHILE: Duration = Duration::from_millis(10);
    let end = Instant::now() + BUSY;
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                sleep(A_WHILE);
            }
            opened => return opened,
        }
    }
}

/// The lowest numbers that none of the `others` has, so many in a row.
fn room<'a>(count: u32, others: impl Iterator<Item = &'a Link>) -> Option<u32> {
    let mut taken: Vec<(u32, u32)> = others.map(|it| (it.first_socket, it.sockets)).collect();
    taken.sort_unstable();
    let mut first = 0;
    for (start, length) in taken {
        if first + count <= start {
            break;
        }
        first = start + length;
    }
    (first + count <= MAX_SOCKETS).then_some(first)
}

/// What the kernel said.
fn refused(error: xdp::socket::SocketError) -> io::Error {
    use xdp::socket::SocketError::{Bind, GetSockOpt, RingMap, SetSockOpt, SocketCreation};
    match error {
        SocketCreation(error) | Bind(error) => error,
        SetSockOpt { inner, .. } | GetSockOpt { inner, .. } | RingMap { inner, .. } => inner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_lowest_that_are_free() {
        let link = |first_socket, sockets| Link {
            first_socket,
            sockets,
            ..Link::default()
        };
        let others = [link(8, 4), link(0, 2), link(0, 0), link(3, 1)];
        assert_eq!(room(1, others.iter()), Some(2));
        assert_eq!(room(4, others.iter()), Some(4));
        assert_eq!(room(5, others.iter()), Some(12));
        assert_eq!(room(MAX_SOCKETS - 12, others.iter()), Some(12));
        assert_eq!(room(MAX_SOCKETS - 11, others.iter()), None);
        assert_eq!(room(0, [].iter()), Some(0));
    }
}
