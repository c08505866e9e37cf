//! The frames that circulate: UDP over IPv4.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use balancer_lab::MacAddress;
use etherparse::PacketBuilder;

use crate::plan;

/// The first bytes of a frame that the far ends write, in words.
pub const WORDS: usize = 6;
/// The length of what follows the UDP header: frames of 60 bytes, the least that Ethernet has.
const PAYLOAD: [u8; 18] = [0x5a; 18];

/// What differs between flows, as the far ends keep it: source, destination, source port and IPv4 checksum, UDP checksum.
pub type Words = [u32; 4];

/// A client's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub source: (Ipv4Addr, u16),
    /// Whom it asks.
    pub destination: (Ipv4Addr, u16),
}

impl Flow {
    /// Number `index` to a destination. Two have the same source port only beyond [`plan::PORTS`] flows.
    #[must_use]
    pub fn new(index: u32, destination: (Ipv4Addr, u16)) -> Self {
        let ports = u32::from(plan::PORTS);
        let client = u32::from(plan::CLIENTS) + 1 + index / ports;
        let port = plan::FIRST_PORT + (index % ports) as u16;
        Self {
            source: (client.into(), port),
            destination,
        }
    }

    /// Its frame from one device to another.
    pub fn frame(&self, from: MacAddress, to: MacAddress) -> anyhow::Result<Vec<u8>> {
        let ((source, source_port), (destination, port)) = (self.source, self.destination);
        let builder = PacketBuilder::ethernet2(from.0, to.0)
            .ipv4(source.octets(), destination.octets(), 64)
            .udp(source_port, port);
        let mut frame = Vec::with_capacity(builder.size(PAYLOAD.len()));
        builder.write(&mut frame, &PAYLOAD)?;
        Ok(frame)
    }
}

/// What the far ends need of a frame to make it again from [`template`].
pub fn words(frame: &[u8]) -> anyhow::Result<Words> {
    let narrow = |at| -> anyhow::Result<u32> { Ok(u16::from_ne_bytes(bytes(frame, at)?).into()) };
    Ok([
        u32::from_ne_bytes(bytes(frame, 26)?),
        u32::from_ne_bytes(bytes(frame, 30)?),
        narrow(34)? | narrow(24)? << 16,
        narrow(40)?,
    ])
}

/// The beginning of a frame.
pub fn template(frame: &[u8]) -> anyhow::Result<[u64; WORDS]> {
    let mut words = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = u64::from_ne_bytes(bytes(frame, index * 8)?);
    }
    Ok(words)
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    frame
        .get(at..)
        .and_then(|rest| rest.first_chunk().copied())
        .context("a frame is too short")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 10), 7000);

    /// As the far end does.
    fn remake(frame: &mut [u8], template: [u64; WORDS], [source, destination, port, udp]: Words) {
        for (index, word) in template.iter().enumerate() {
            frame[index * 8..][..8].copy_from_slice(&word.to_ne_bytes());
        }
        frame[24..26].copy_from_slice(&((port >> 16) as u16).to_ne_bytes());
        frame[26..30].copy_from_slice(&source.to_ne_bytes());
        frame[30..34].copy_from_slice(&destination.to_ne_bytes());
        frame[34..36].copy_from_slice(&(port as u16).to_ne_bytes());
        frame[40..42].copy_from_slice(&(udp as u16).to_ne_bytes());
    }

    #[test]
    fn any_frame_is_remade_from_any_other() {
        let frame = |index| Flow::new(index, TO).frame(MAC, MAC).unwrap();
        let first = frame(0);
        for index in [1, 1000, u32::from(plan::PORTS), 100_000] {
            let wanted = frame(index);
            let mut made = first.clone();
            remake(
                &mut made,
                template(&first).unwrap(),
                words(&wanted).unwrap(),
            );
            assert_eq!(made, wanted, "flow {index}");
        }
    }

    #[test]
    fn ports_repeat_only_at_another_client() {
        let ports = u32::from(plan::PORTS);
        let (first, again) = (Flow::new(0, TO).source, Flow::new(ports, TO).source);
        assert_eq!(first.1, again.1);
        assert_ne!(first.0, again.0);
        let last = Flow::new(ports - 1, TO).source;
        assert!(last.1 <= plan::SOURCE_PORTS.1, "{last:?}");
    }
}
