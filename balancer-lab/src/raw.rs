//! Whole Ethernet frames, in and out.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::unistd;

use crate::{Host, Result, error::Context, sys};

/// Room for the largest frame that a link can carry, and two VLAN tags.
const LARGEST_FRAME: usize = 65_536 + 32;
/// Frames wait here while a test looks elsewhere.
const RECEIVE_BUFFER: i32 = 16 << 20;
/// How long frames that are there already may take to look through.
const DRAIN: Duration = Duration::from_millis(200);
/// The two addresses at the head of a frame.
const ADDRESSES: usize = 12;

/// A packet socket on one device of a host.
///
/// It sends frames exactly as given, and hears every frame that reaches the device, whoever it is for, but none that the host
/// itself sends. A VLAN tag that the kernel has taken out of a frame is put back.
#[derive(Debug)]
pub struct RawPort {
    socket: OwnedFd,
    what: String,
}

impl RawPort {
    /// Opens `device` of `host`. Frames are kept from now on.
    pub fn open(host: &Host, device: &str) -> Result<Self> {
        let what = format!("packet socket on {device} of {}", host.name());
        let socket = host
            .enter(|| sys::packet_socket(device, RECEIVE_BUFFER))?
            .context(|| what.clone())?;
        Ok(Self { socket, what })
    }

    /// Sends one frame, from the destination address to the last byte of the payload, without the checksum.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = unistd::write(&self.socket, frame)
            .context(|| format!("{}: sending {} bytes", self.what, frame.len()))?;
        debug_assert_eq!(sent, frame.len(), "a packet socket sends all or nothing");
        Ok(())
    }

    /// The next frame that `filter` takes, or nothing when the time is over. Frames that it does not take are forgotten.
    pub fn receive(
        &self,
        timeout: Duration,
        mut filter: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + timeout;
        let mut buffer = vec![0; LARGEST_FRAME];
        loop {
            // What is there already is looked at even when the time is over, but a busy link must not keep this loop going.
            let now = Instant::now();
            if now > end + DRAIN {
                return Ok(None);
            }
            let left = end.saturating_duration_since(now);
            let flags = if left.is_zero() {
                libc::MSG_DONTWAIT
            } else {
                0
            };
            sys::set_receive_timeout(&self.socket, left).context(|| self.what.clone())?;
            match sys::receive_frame(&self.socket, &mut buffer, flags) {
                Ok((length, tag)) => {
                    let frame = with_tag(&buffer[..length], tag);
                    if filter(&frame) {
                        return Ok(Some(frame));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The device was down for a moment.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) => return Err(error).context(|| self.what.clone()),
            }
        }
    }

    /// Up to `count` frames that `filter` takes: fewer when the time is over first.
    pub fn capture(
        &self,
        count: usize,
        timeout: Duration,
        mut filter: impl FnMut(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let end = Instant::now() + timeout;
        let mut frames = Vec::new();
        while frames.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            match self.receive(left, &mut filter)? {
                Some(frame) => frames.push(frame),
                None => break,
            }
        }
        Ok(frames)
    }

    /// Forgets all frames that have come so far, and tells how many.
    pub fn clear(&self) -> Result<usize> {
        let mut buffer = [0; ADDRESSES];
        let mut cleared = 0;
        loop {
            match sys::receive_frame(&self.socket, &mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => cleared += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(cleared),
                Err(error) => return Err(error).context(|| self.what.clone()),
            }
        }
    }
}

fn with_tag(frame: &[u8], tag: Option<[u8; 4]>) -> Vec<u8> {
    let Some(tag) = tag else {
        return frame.to_vec();
    };
    let (addresses, rest) = frame.split_at(ADDRESSES.min(frame.len()));
    [addresses, &tag, rest].concat()
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn a_tag_goes_between_the_addresses_and_the_type() {
        let frame = [&[1u8; 12][..], &[8, 0, 42]].concat();
        let tagged = [&[1u8; 12][..], &[0x81, 0, 0x20, 7, 8, 0, 42]].concat();
        assert_eq!(with_tag(&frame, Some([0x81, 0, 0x20, 7])), tagged);
        assert_eq!(with_tag(&frame, None), frame);
    }
}
