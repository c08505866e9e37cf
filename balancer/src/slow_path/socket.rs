//! An `AF_XDP` socket on one receive queue.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use balancer_common::abi::Note;
use xdp::nic::NicIndex;
use xdp::slab::{HeapSlab, Slab as _};
use xdp::socket::{XdpSocket, XdpSocketBuilder};
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{CompletionRing, FillRing, RingConfigBuilder, RxRing, TxRing, Umem};

/// Frames of 4 KiB: the socket's memory, 1 MiB. Of a frame 3,808 bytes are there for the packet; the kernel drops what is
/// longer.
const FRAMES: u32 = 256;

/// How many frames may wait to be read, and as many to be sent.
const RING: u32 = 128;

/// How often the ring is emptied before others have their turn.
const ROUNDS: usize = 4;

/// The room before each frame, where the note is.
const HEADROOM: u32 = 32;

/// A socket. The rings go before the socket does, and all of them before the memory.
pub struct Socket {
    fill: FillRing,
    receive: RxRing,
    send: TxRing,
    completion: CompletionRing,
    descriptor: XdpSocket,
    slab: HeapSlab,
    umem: Umem,
    /// How many frames the fill ring is to be given.
    owed: usize,
}

impl Socket {
    /// Opens one on a queue of an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(interface: u32, queue: u32) -> io::Result<Self> {
        let config = UmemCfgBuilder {
            frame_size: FrameSize::FourK,
            head_room: HEADROOM,
            frame_count: FRAMES,
            ..UmemCfgBuilder::default()
        };
        let mut umem = Umem::map(config.build().map_err(io::Error::other)?)?;
        let rings = RingConfigBuilder {
            rx_count: RING,
            tx_count: RING,
            fill_count: RING,
            completion_count: RING,
        };
        let mut builder = XdpSocketBuilder::new().map_err(refused)?;
        let (rings, mut flags) = builder
            .build_rings(&umem, rings.build().map_err(io::Error::other)?)
            .map_err(refused)?;
        let (Some(receive), Some(send)) = (rings.rx_ring, rings.tx_ring) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut fill = rings.fill_ring;
        // SAFETY: the memory is kept as long as the socket: see the order of the fields.
        unsafe { fill.enqueue(&mut umem, RING as usize) };
        // See the module's parent for why.
        flags.force_copy();
        let descriptor = builder
            .bind(NicIndex(interface), queue, flags)
            .map_err(refused)?;
        Ok(Self {
            fill,
            receive,
            send,
            completion: rings.completion_ring,
            descriptor,
            slab: HeapSlab::with_capacity(RING as usize),
            umem,
            owed: 0,
        })
    }

    /// The socket's descriptor.
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

    /// Reads what has come: `each` is given the note and the frame, or nothing when there is no note.
    pub fn receive(&mut self, mut each: impl FnMut(Option<(Note, &[u8])>)) {
        for _ in 0..ROUNDS {
            // SAFETY: the packets are freed below, before the memory goes.
            let count = unsafe { self.receive.recv(&self.umem, &mut self.slab) };
            while let Some(mut packet) = self.slab.pop_back() {
                const NOTE: i32 = size_of::<Note>().cast_signed() as i32;
                let has_note = packet.adjust_head(-NOTE).is_ok();
                let noted = packet.split_first_chunk().filter(|_| has_note);
                each(noted.map(|(note, frame)| (read(*note), frame)));
                self.umem.free_packet(packet);
            }
            // As many as came: the ring takes all that it is given, or none, for a moment after the kernel has written.
            self.owed += count;
            // SAFETY: as above.
            self.owed -= unsafe { self.fill.enqueue(&mut self.umem, self.owed) };
            if count == 0 {
                break;
            }
        }
    }

    /// Sends a frame out of the interface. Says whether there was room.
    pub fn transmit(&mut self, frame: &[u8]) -> bool {
        self.completion.dequeue(&mut self.umem, RING as usize);
        // SAFETY: the packet is sent, or freed, before the memory goes.
        let Some(mut packet) = (unsafe { self.umem.alloc() }) else {
            return false;
        };
        if packet.insert(0, frame).is_err() {
            self.umem.free_packet(packet);
            return false;
        }
        self.slab.push_front(packet);
        // SAFETY: as above.
        let sent = unsafe { self.send.send(&mut self.slab) } == 1;
        if let Some(packet) = self.slab.pop_back() {
            self.umem.free_packet(packet);
        }
        self.kick();
        sent
    }

    /// Has the kernel send what there is.
    fn kick(&self) {
        let (nothing, none) = (std::ptr::null(), std::ptr::null());
        // SAFETY: nothing is read from where nothing is. An error means that the interface is busy or gone; what then
        // stays is sent with the next.
        let _ = unsafe {
            libc::sendto(
                self.descriptor.as_raw_fd(),
                nothing,
                0,
                libc::MSG_DONTWAIT,
                none,
                0,
            )
        };
    }
}

/// A note as the program wrote it.
fn read(bytes: [u8; size_of::<Note>()]) -> Note {
    let word = u64::from_le_bytes(bytes);
    Note {
        verdict: u32::from_le(word as u32),
        mtu: u32::from_le((word >> 32) as u32),
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
