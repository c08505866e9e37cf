//! XDP can redirect into every end of a lab's links: the program here is four instructions, made by hand.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

use std::{
    ffi::CStr,
    io,
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

use balancer_lab::{Host, Lab, RawPort};
use nix::{libc, net::if_::if_nametoindex};

const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// Native mode: generic XDP redirects otherwise.
const XDP_FLAGS_DRV_MODE: u32 = 4;
const REDIRECT_HELPER: u32 = 23;

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

/// The first fields of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: i32,
    interface: u32,
    attach: u32,
    flags: u32,
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: pointer and length describe `attributes`; what it points to lives in the caller's frame.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

/// Sends every frame that comes in at `from` out at `to`, until the link and the program are dropped.
fn redirect(host: &Host, from: &str, to: &str) -> (OwnedFd, OwnedFd) {
    let instruction = |code: u8, register: u8, value: u32| {
        u64::from(code) | u64::from(register) << 8 | u64::from(value) << 32
    };
    host.enter(|| {
        // r1 = device, r2 = flags, call bpf_redirect, exit with its verdict
        let program = [
            instruction(0xb7, 1, if_nametoindex(to).unwrap()),
            instruction(0xb7, 2, 0),
            instruction(0x85, 0, REDIRECT_HELPER),
            instruction(0x95, 0, 0),
        ];
        let license: &CStr = c"GPL";
        let load = Load {
            kind: BPF_PROG_TYPE_XDP,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log: [0; 4],
            kernel: 0,
            flags: 0,
            name: [0; 16],
            interface: 0,
            attach: BPF_XDP,
        };
        let program = bpf(BPF_PROG_LOAD, &load).unwrap();
        let link = Link {
            program,
            interface: if_nametoindex(from).unwrap(),
            attach: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        let link = bpf(BPF_LINK_CREATE, &link).unwrap();
        // SAFETY: the kernel has just given both descriptors to us, and nobody else knows them.
        unsafe { (OwnedFd::from_raw_fd(program), OwnedFd::from_raw_fd(link)) }
    })
    .unwrap()
}

fn check(client: &Host, server: &Host) {
    let source = [2, 0, 0, 0, 0, 9];
    let sender = RawPort::open(client, "eth0").unwrap();
    let receiver = RawPort::open(server, "eth0").unwrap();
    for number in 0..100u8 {
        // Every other one with a VLAN tag. The kernel takes no tagged frame of less than 20 bytes.
        let tag: &[u8] = if number % 2 == 0 {
            &[0x81, 0, 0, 7]
        } else {
            &[]
        };
        let sent = [&[0xff; 6], &source[..], tag, &[0x88, 0xb5, number, 0]].concat();
        sender.send(&sent).unwrap();
        let arrived = receiver.receive(Duration::from_secs(1), |frame| frame[6..12] == source);
        assert_eq!(arrived.unwrap(), Some(sent));
    }
}

#[test]
fn a_frame_can_be_redirected_into_a_link() {
    let Some(lab) = Lab::for_test("redirect") else {
        return;
    };
    let [client, balancer, server] = ["client", "lb", "server"].map(|name| lab.host(name).unwrap());
    // The balancer's end is the second of one link and the first of the other: both kinds have to do.
    lab.link(&client, "eth0", &balancer, "eth0").unwrap();
    lab.link(&balancer, "eth1", &server, "eth0").unwrap();
    let _there = redirect(&balancer, "eth0", "eth1");
    check(&client, &server);
    let _back = redirect(&balancer, "eth1", "eth0");
    check(&server, &client);
    // A pulled cable must not change that.
    server.link_down("eth0").unwrap();
    server.link_up("eth0").unwrap();
    check(&client, &server);
}

#[test]
fn a_frame_can_be_redirected_into_a_switch() {
    let Some(lab) = Lab::for_test("redirect") else {
        return;
    };
    let [client, balancer, server] = ["client", "lb", "server"].map(|name| lab.host(name).unwrap());
    lab.link(&client, "eth0", &balancer, "eth0").unwrap();
    lab.switch("lan", &[(&balancer, "eth1"), (&server, "eth0")])
        .unwrap();
    let _there = redirect(&balancer, "eth0", "eth1");
    check(&client, &server);
}
