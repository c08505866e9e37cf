//! The far ends that a load balancer is measured between, without a generator: the same few frames circulate for ever.
//!
//! ```text
//!             ┌────────────────────────── round: `turn` ◄──────────────────────────┐
//!   client ◄──┴── `ask_again` ──► the box ──► server: `turn` (round) or `count` (one way)
//!      ▲                                                                │
//!      └───────────────── `ask_next`, over a wire of its own ◄──────────┘
//! ```
//!
//! - A round: the server's end swaps the addresses of a frame and sends it back through the box; the client's end takes
//!   the answer for the next flow.
//! - One way: the server's end hands the frame over a wire that does not go through the box; the client's end takes it
//!   for the next flow.
//!
//! The first frames come from test runs of `ask_next`, all at once. Each end checks where a frame says that it comes from and goes to. Frames end when the client's end has no flows or
//! rounds left, or at the next end when [`Control::stop`] is set; all are counted there, so none is lost unseen.
//!
//! The frames are UDP over IPv4. A device with one receive queue runs its program on one CPU at a time, so
//! [`STATE`] needs no lock.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of a program is that of the macro"
)]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The first bytes of a frame, in words: Ethernet, IPv4 and UDP headers and six bytes of payload.
const WORDS: usize = 6;
/// The length of those.
const HEAD: usize = WORDS * 8;
/// How many backends are told apart.
const BACKENDS: u32 = 16_384;

/// What user space sets. Addresses and masks are in network order.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    /// The first bytes of what the client sends; addresses, ports and checksums come from the flow.
    template: [u64; WORDS],
    /// Not 0: the ends drop what they get.
    stop: u32,
    /// How many of [`FLOWS`] there are.
    flows: u32,
    /// Not 0: after the last flow comes the first.
    wrap: u32,
    /// The device that the client's end sends by.
    client_device: u32,
    /// The device that the server's end sends by.
    server_device: u32,
    /// The devices of the box: towards the client, towards the server.
    box_devices: [u32; 2],
    /// Where the client's answers come from: address and mask.
    answer: [u32; 2],
    /// Where the server's frames come from: address and mask.
    source: [u32; 2],
    /// Where the server's frames go to: address and mask. What the mask leaves is the backend's number.
    backends: [u32; 2],
    /// No padding.
    reserved: u32,
}

/// What the client's end changes.
#[repr(C)]
struct State {
    /// The flow that comes next.
    next: u64,
    /// How many frames it may still send: a bound that holds though nobody sets `stop`.
    left: u64,
    /// When the first flow was sent, by the clock of `bpf_ktime_get_ns`.
    begun: u64,
    /// When the first frame came back for which no flow was left; 0 before.
    ended: u64,
}

/// One client: source, destination, then the source port (low half) with the checksum of IPv4, and that of UDP.
type Flow = [u32; 4];

/// How many frames an end has sent on, dropped because they should not have come there, and dropped at the end.
type Counts = [u64; 3];
const SENT: usize = 0;
const WRONG: usize = 1;
const ENDED: usize = 2;

#[btf_map]
static CONTROL: Array<Control, 1> = Array::new();
#[btf_map]
static STATE: Array<State, 1> = Array::new();
/// In the order in which they come. Its size is set by the loader.
#[btf_map]
static FLOWS: Array<Flow, 1> = Array::new();
/// The client's end, the server's end, the box with `hand_over`.
#[btf_map]
static COUNTS: PerCpuArray<Counts, 3> = PerCpuArray::new();
/// Frames that came to a backend, one way.
#[btf_map]
static ARRIVED: PerCpuArray<u64, { BACKENDS as usize }> = PerCpuArray::new();

const CLIENT: u32 = 0;
const SERVER: u32 = 1;
const BOX: u32 = 2;

/// The client's end of a round.
#[xdp]
fn ask_again(context: XdpContext) -> u32 {
    let Some(head) = Head::of(&context) else {
        return XDP_PASS;
    };
    let Some(control) = CONTROL.get(0) else {
        return XDP_ABORTED;
    };
    if !matches(head.source(), control.answer) {
        return end(CLIENT, WRONG);
    }
    ask(&head, control, XDP_TX)
}

/// The client's end of one way.
#[xdp]
fn ask_next(context: XdpContext) -> u32 {
    let Some(head) = Head::of(&context) else {
        return XDP_PASS;
    };
    let Some(control) = CONTROL.get(0) else {
        return XDP_ABORTED;
    };
    ask(&head, control, send(control.client_device))
}

/// On the box, where nothing else is: the other end's `XDP_TX` wakes only a device that has a program.
#[xdp]
fn idle(_: XdpContext) -> u32 {
    XDP_PASS
}

/// On the box: hands each frame over to the other side as it is, which is the least that a box can do.
#[xdp]
fn hand_over(context: XdpContext) -> u32 {
    let Some(head) = Head::of(&context) else {
        return XDP_PASS;
    };
    let Some(control) = CONTROL.get(0) else {
        return XDP_ABORTED;
    };
    tally(BOX, SENT);
    let outside = matches(head.source(), control.source);
    send(control.box_devices[usize::from(outside)])
}

/// The server's end of a round.
#[xdp]
fn turn(context: XdpContext) -> u32 {
    let Some(head) = Head::of(&context) else {
        return XDP_PASS;
    };
    let Some(control) = CONTROL.get(0) else {
        return XDP_ABORTED;
    };
    if !arrives(&head, control) {
        return end(SERVER, WRONG);
    }
    if control.stop != 0 {
        return end(SERVER, ENDED);
    }
    head.turn();
    tally(SERVER, SENT);
    XDP_TX
}

/// The server's end of one way.
#[xdp]
fn count(context: XdpContext) -> u32 {
    let Some(head) = Head::of(&context) else {
        return XDP_PASS;
    };
    let Some(control) = CONTROL.get(0) else {
        return XDP_ABORTED;
    };
    if !arrives(&head, control) {
        return end(SERVER, WRONG);
    }
    let number = u32::from_be(head.destination() & !control.backends[1]);
    if let Some(arrived) = ARRIVED.get_ptr_mut(number) {
        // SAFETY: a value of this CPU.
        unsafe { *arrived += 1 };
    }
    if control.stop != 0 {
        return end(SERVER, ENDED);
    }
    tally(SERVER, SENT);
    send(control.server_device)
}

/// Makes a frame one of the next flow; `action`, unless the frame ends here.
#[inline(always)]
fn ask(head: &Head, control: &Control, action: u32) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: a value of the map that this program alone writes, on one CPU at a time.
    let state = unsafe { &mut *state };
    if control.stop != 0 || state.left == 0 {
        return end(CLIENT, ENDED);
    }
    if state.next >= u64::from(control.flows) {
        if control.wrap == 0 {
            if state.ended == 0 {
                // SAFETY: asks for the time.
                state.ended = unsafe { bpf_ktime_get_ns() };
            }
            return end(CLIENT, ENDED);
        }
        state.next = 0;
    }
    if state.begun == 0 {
        // SAFETY: as above.
        state.begun = unsafe { bpf_ktime_get_ns() };
    }
    let Some(flow) = FLOWS.get(state.next as u32) else {
        return end(CLIENT, ENDED);
    };
    state.next += 1;
    state.left -= 1;
    head.write(&control.template, *flow);
    tally(CLIENT, SENT);
    action
}

/// By a device of the program's own namespace.
#[inline(always)]
fn send(device: u32) -> u32 {
    // SAFETY: takes numbers.
    unsafe { bpf_redirect(device, 0).cast_unsigned() as u32 }
}

/// Whether a frame comes from and goes to where the frames of this measurement do.
#[inline(always)]
fn arrives(head: &Head, control: &Control) -> bool {
    matches(head.source(), control.source) && matches(head.destination(), control.backends)
}

#[inline(always)]
fn matches(address: u32, [wanted, mask]: [u32; 2]) -> bool {
    address & mask == wanted
}

/// Drops a frame and counts it.
#[inline(always)]
fn end(side: u32, why: usize) -> u32 {
    tally(side, why);
    XDP_DROP
}

#[inline(always)]
fn tally(side: u32, what: usize) {
    if let Some(counts) = COUNTS.get_ptr_mut(side) {
        // SAFETY: a value of this CPU; `what` is one of the three constants.
        unsafe { (*counts)[what] += 1 };
    }
}

/// The first [`HEAD`] bytes of a frame that is UDP over IPv4 without options.
struct Head(usize);

impl Head {
    /// `None`: another frame, or a shorter one.
    #[inline(always)]
    fn of(context: &XdpContext) -> Option<Self> {
        let start = context.data();
        if start + HEAD > context.data_end() {
            return None;
        }
        let head = Self(start);
        let kind: u16 = head.read(12);
        let version: u8 = head.read(14);
        let protocol: u8 = head.read(23);
        (kind == 0x0800_u16.to_be() && version == 0x45 && protocol == 17).then_some(head)
    }

    /// What is at `offset`, in network order. All offsets here are constants with their value below [`HEAD`].
    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the bytes lie before the end that `of` has compared, which the verifier checks again.
        unsafe { ((self.0 + offset) as *const T).read_unaligned() }
    }

    #[inline(always)]
    fn put<T>(&self, offset: usize, value: T) {
        // SAFETY: as for `read`; a program may write to its frame.
        unsafe { ((self.0 + offset) as *mut T).write_unaligned(value) }
    }

    #[inline(always)]
    fn source(&self) -> u32 {
        self.read(26)
    }

    #[inline(always)]
    fn destination(&self) -> u32 {
        self.read(30)
    }

    #[inline(always)]
    fn write(&self, template: &[u64; WORDS], [source, destination, port, udp]: Flow) {
        for (index, word) in template.iter().enumerate() {
            // SAFETY: a word of the array. Volatile, or the compiler makes it one copy, which is a loop over bytes.
            let word = unsafe { (&raw const *word).read_volatile() };
            self.put(index * 8, word);
        }
        self.put(24, (port >> 16) as u16);
        self.put(26, source);
        self.put(30, destination);
        self.put(34, port as u16);
        self.put(40, udp as u16);
    }

    /// Back to where it came from, with the time to live that it began with.
    #[inline(always)]
    fn turn(&self) {
        let [destination, source]: [[u16; 3]; 2] = [self.read(0), self.read(6)];
        self.put(0, source);
        self.put(6, destination);
        let [source, destination] = [self.source(), self.destination()];
        self.put(26, destination);
        self.put(30, source);
        let ports: u32 = self.read(34);
        self.put(34, ports.rotate_left(16));
        // RFC 1624: the sum changes by the new word less the old one.
        let old: u16 = self.read(22);
        let new = (old.to_be() & 0x00ff | 0x4000).to_be();
        let checksum: u16 = self.read(24);
        let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        self.put(22, new);
        self.put(24, !(sum as u16));
    }
}

/// Never reached.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: the name belongs to no other symbol; the kernel reads the section by its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
