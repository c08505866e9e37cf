//! The system calls that no safe wrapper covers: device settings by `ioctl`, and packet sockets.

use std::{
    io, mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr,
};

use nix::sched::{CloneFlags, setns};

/// Settings of a device that have an old `ethtool` command of their own.
#[derive(Clone, Copy)]
pub(crate) enum Feature {
    TransmitChecksum,
    ReceiveGrouping,
    Segmentation,
    TcpSegmentation,
}

impl Feature {
    /// The `ETHTOOL_S…` number of linux/ethtool.h.
    const fn command(self) -> u32 {
        match self {
            Self::TransmitChecksum => 0x17,
            Self::TcpSegmentation => 0x1f,
            Self::Segmentation => 0x24,
            Self::ReceiveGrouping => 0x2c,
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    owned(fd)
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn request(device: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain old data, and all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // One byte stays 0: the name ends there.
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn device_ioctl(
    socket: &OwnedFd,
    number: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: `request` is a whole `ifreq`; where the call follows its data pointer, the caller keeps the target alive.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, ptr::from_mut(request)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets a device of the calling thread's namespace up or down.
pub(crate) fn set_up(device: &str, up: bool) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = request(device)?;
    device_ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call above has written the flags, and every bit pattern is a value of them.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let bit = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    device_ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// The hardware address of a device of the calling thread's namespace.
pub(crate) fn hardware_address(device: &str) -> io::Result<[u8; 6]> {
    let socket = control_socket()?;
    let mut request = request(device)?;
    device_ioctl(&socket, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the call above has written a `sockaddr`, and every bit pattern is a value of it.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut address = [0; 6];
    for (to, from) in address.iter_mut().zip(data) {
        *to = from.cast_unsigned();
    }
    Ok(address)
}

/// Switches features of a device of the calling thread's namespace.
pub(crate) fn set_features(device: &str, features: &[(Feature, bool)]) -> io::Result<()> {
    let socket = control_socket()?;
    for (feature, on) in features {
        let mut value = EthtoolValue {
            command: feature.command(),
            data: u32::from(*on),
        };
        let mut request = request(device)?;
        request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
        device_ioctl(&socket, libc::SIOCETHTOOL as libc::Ioctl, &mut request)?;
    }
    Ok(())
}

/// Lets `command` run in the network namespace behind `namespace`.
pub(crate) fn enter_before_exec(command: &mut Command, namespace: OwnedFd) {
    // SAFETY: between fork and exec the closure makes one system call, and allocates nothing.
    unsafe {
        command
            .pre_exec(move || setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
    }
}

/// `struct tpacket_auxdata`: what the kernel knows of a frame beside its bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    length: u32,
    captured: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

const STATUS_VLAN_VALID: u32 = 1 << 4;
const STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const TPID_8021Q: u16 = 0x8100;

fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A packet socket on one device of the calling thread's namespace: all protocols, promiscuous, without what the host itself sends.
pub(crate) fn packet_socket(device: &str, receive_buffer: i32) -> io::Result<OwnedFd> {
    // Protocol 0 hears nothing, so no frame of another device can come in before `bind`.
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let socket = owned(fd)?;
    let index = nix::net::if_::if_nametoindex(device)?.cast_signed();
    let on: i32 = 1;
    set_option(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        &receive_buffer,
    )?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on)?;
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(
        &socket,
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        &membership,
    )?;
    // SAFETY: `sockaddr_ll` is plain old data, and all zeros is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    // SAFETY: pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Bounds the next `receive_frame` calls.
pub(crate) fn set_receive_timeout(
    socket: &OwnedFd,
    timeout: std::time::Duration,
) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: timeout.as_secs().cast_signed(),
        // All zeros would mean no bound at all.
        tv_usec: i64::from(timeout.subsec_micros()).max(1),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value)
}

/// Takes one frame: its bytes' number in `buffer`, and the VLAN tag that the kernel took out of it, as the four bytes that stood in the frame.
pub(crate) fn receive_frame(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: i32,
) -> io::Result<(usize, Option<[u8; 4]>)> {
    // Words, so that the control messages' headers are aligned.
    let mut control = [0u64; 16];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is plain old data, and all zeros is a value of it.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` points to `part` and `control`, with their true lengths, and both outlive the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(received) = usize::try_from(received) else {
        return Err(io::Error::last_os_error());
    };
    let mut tag = None;
    // SAFETY: the kernel has filled `message` and its control buffer, and the macros stay within `msg_controllen`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, so it is a header within `control`.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: a message of this kind carries a whole `tpacket_auxdata`.
            let aux = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<AuxData>()) };
            if aux.status & STATUS_VLAN_VALID != 0 {
                let tpid = if aux.status & STATUS_VLAN_TPID_VALID == 0 {
                    TPID_8021Q
                } else {
                    aux.vlan_tpid
                };
                let [a, b] = tpid.to_be_bytes();
                let [c, d] = aux.vlan_tci.to_be_bytes();
                tag = Some([a, b, c, d]);
            }
        }
        // SAFETY: as for the first header.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok((received, tag))
}
