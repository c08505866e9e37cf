//! Cutting an IPv4 packet into fragments (RFC 791, section 3.2).

use balancer_common::parse;
use etherparse::Ipv4HeaderSlice;

/// The length of a header without options.
const HEADER: usize = 20;

/// In an option's kind: fragments have it too.
const COPIED: u8 = 0x80;

/// The fragments of a frame, none longer than `mtu` from the network header on, in order. Their checksums are right; TTL and all
/// else is as it was. `None` when it is no IPv4 packet, or none that may be cut so.
#[must_use]
pub fn cut(frame: &[u8], mtu: u32) -> Option<Vec<Vec<u8>>> {
    let l3 = parse::ethernet(&frame).ok()?.l3;
    let (link, packet) = frame.split_at_checked(l3)?;
    let slice = Ipv4HeaderSlice::from_slice(packet).ok()?;
    if slice.dont_fragment() {
        return None;
    }
    let first = slice.to_header();
    let length = first.header_len();
    let data = packet.get(length..usize::from(first.total_len))?;
    let mut others = first.clone();
    others.options = copied(&packet[HEADER..length]).as_slice().try_into().ok()?;
    // Room for the longer of the two headers, so that all are cut alike.
    let room = (mtu as usize).checked_sub(length)? / 8 * 8;
    if room == 0 {
        return None;
    }
    let start = first.fragment_offset.byte_offset();
    let pieces = data.chunks(room).enumerate().map(|(index, piece)| {
        let mut header = if index == 0 {
            first.clone()
        } else {
            others.clone()
        };
        let offset = usize::from(start) + index * room;
        let is_last = (index + 1) * room >= data.len();
        header.fragment_offset = u16::try_from(offset / 8).ok()?.try_into().ok()?;
        header.more_fragments = !is_last || first.more_fragments;
        header.set_payload_len(piece.len()).ok()?;
        header.header_checksum = header.calc_header_checksum();
        let mut fragment = link.to_vec();
        fragment.extend(header.to_bytes());
        fragment.extend(piece);
        Some(fragment)
    });
    pieces.collect()
}

/// The options that every fragment has, padded to a multiple of four bytes.
fn copied(mut options: &[u8]) -> Vec<u8> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    let mut copied = Vec::new();
    while let Some((&kind, rest)) = options.split_first() {
        let length = match kind {
            END => break,
            NO_OPERATION => 1,
            _ => rest.first().map_or(1, |&length| usize::from(length).max(2)),
        };
        let Some((option, rest)) = options.split_at_checked(length) else {
            break;
        };
        if kind & COPIED != 0 {
            copied.extend(option);
        }
        options = rest;
    }
    copied.resize(copied.len().next_multiple_of(4), END);
    copied
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use etherparse::{IpFragOffset, Ipv4Header, Ipv4Slice};

    use super::*;

    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];

    /// A frame with these options, whose data is counted up.
    fn frame(options: &[u8], length: usize, change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
        let data: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let mut header = Ipv4Header::new(0, 9, 17.into(), [192, 0, 2, 1], [192, 0, 2, 10]).unwrap();
        header.identification = 77;
        header.dont_fragment = false;
        header.options = options.try_into().unwrap();
        header.set_payload_len(length).unwrap();
        change(&mut header);
        header.header_checksum = header.calc_header_checksum();
        [&LINK[..], &header.to_bytes()[..], &data].concat()
    }

    fn together(fragments: &[Vec<u8>], mtu: usize) -> Vec<u8> {
        let mut data = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            let packet = &fragment[14..];
            assert!(packet.len() <= mtu);
            assert_eq!(fragment[..14], LINK);
            let ip = Ipv4Slice::from_slice(packet).unwrap();
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!((header.identification, header.time_to_live), (77, 9));
            assert_eq!(
                usize::from(header.fragment_offset.byte_offset()),
                data.len()
            );
            assert_eq!(header.more_fragments, index + 1 < fragments.len());
            data.extend(ip.payload().payload);
        }
        data
    }

    #[test]
    fn the_parts_make_the_whole() {
        for length in [1, 1272, 1280, 1281, 1480, 3000, 9000] {
            let frame = frame(&[], length, |_| {});
            let fragments = cut(&frame, 1300).unwrap();
            assert_eq!(fragments.len(), length.div_ceil(1280));
            assert_eq!(together(&fragments, 1300), frame[34..]);
        }
    }

    #[test]
    fn a_fragment_is_cut_further() {
        let frame = frame(&[], 1480, |header| {
            header.fragment_offset = IpFragOffset::try_new(10).unwrap();
            header.more_fragments = true;
        });
        let fragments = cut(&frame, 1000).unwrap();
        let header = |index: usize| {
            Ipv4Slice::from_slice(&fragments[index][14..])
                .unwrap()
                .header()
                .to_header()
        };
        assert_eq!(fragments.len(), 2);
        assert_eq!(header(0).fragment_offset.byte_offset(), 80);
        assert_eq!(header(1).fragment_offset.byte_offset(), 80 + 976);
        assert!(header(0).more_fragments && header(1).more_fragments);
    }

    #[test]
    fn options_are_copied_that_want_it() {
        // A timestamp, which is not copied, and a router alert, which is.
        let options = [68, 4, 5, 0, 148, 4, 0, 0];
        let frame = frame(&options, 2000, |_| {});
        let fragments = cut(&frame, 1500).unwrap();
        assert_eq!(fragments[0][34..42], options);
        assert_eq!(fragments[1][14] & 15, 6);
        assert_eq!(fragments[1][34..38], [148, 4, 0, 0]);
    }

    #[test]
    fn what_may_not_be_cut_is_not() {
        assert_eq!(
            cut(
                &frame(&[], 2000, |header| header.dont_fragment = true),
                1500
            ),
            None
        );
        assert_eq!(cut(&frame(&[], 2000, |_| {}), 27), None);
        assert_eq!(cut(&[0; 20], 1500), None);
    }
}
