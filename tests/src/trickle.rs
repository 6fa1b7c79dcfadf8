//! A slow companion to the flood that goes the way of ordinary frames, through a packet socket.
//!
//! Why: a frame that the generator redirects is charged a whole page wherever it is queued, a frame of a real client
//! about a kilobyte. Before a server's full socket buffer the big ones are turned away while the small ones still fit
//! into what is left, so that the generator alone is kinder to real clients than any network card: there a flood's
//! frames and everybody else's are charged alike. The companion's frames are, and take that room.
//!
//! Alone it is also the smoother flood, up to 100,000 frames a second: the generator sends so many in bursts.

use std::time::Duration;

use anyhow::Result;

use crate::{
    mac::Mac,
    paced::{Pace, Paced},
    packet_socket::PacketSocket,
    packets::{CHADDR_IN_MESSAGE, discover},
    random::mix,
    topology::Injection,
};

/// Frames a second: more than a server answers, little against the flood.
const RATE_PPS: u64 = 30_000;
/// Whose frames they are, each with another client hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// All of one MAC.
    One(Mac),
    /// Each of another MAC, `0a:…`, which is also its client hardware address.
    Random,
}

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(1);
/// Where the client hardware address of an untagged frame without IP options is: Ethernet 14, IPv4 20, UDP 8.
const CHADDR_IN_FRAME: usize = 42 + CHADDR_IN_MESSAGE;
/// Where the source MAC is.
const SOURCE_IN_FRAME: usize = 6;

/// A running companion; stopped on drop.
#[derive(Debug)]
pub struct Trickle(Paced);

impl Trickle {
    /// Starts to send DISCOVERs of `source`, each with another client hardware address, for `max_time` at most.
    pub fn start(from: &Injection, source: Mac, max_time: Duration) -> Result<Self> {
        Self::start_at(from, Source::One(source), RATE_PPS, max_time)
    }

    /// Starts to send DISCOVERs, so many a second, for `max_time` at most.
    pub fn start_at(from: &Injection, source: Source, rate_pps: u64, max_time: Duration) -> Result<Self> {
        let socket = PacketSocket::open(&from.netns, &from.interface)?;
        let pace = Pace { rate_pps, tick: TICK, most: (rate_pps / 100).max(1), max_time };
        let mut bytes = template(source);
        let send = move |number| {
            vary(&mut bytes, source, number);
            // A full queue loses the frame, as a wire would.
            let _ = socket.send(&bytes);
        };
        Paced::start("trickle", pace, send).map(Self)
    }

    /// Stops, and answers how many frames it sent.
    #[must_use]
    pub fn stop(self) -> u64 {
        self.0.stop()
    }
}

/// The frame before it is anybody's.
fn template(source: Source) -> Vec<u8> {
    let mut frame = discover(match source {
        Source::One(mac) => mac,
        Source::Random => Mac([0x0a, 0, 0, 0, 0, 0]),
    });
    // The address changes in place.
    frame.checksum = false;
    frame.bytes()
}

/// Makes the frame the one of this number.
fn vary(bytes: &mut [u8], source: Source, number: u64) {
    match source {
        Source::One(_) => bytes[CHADDR_IN_FRAME + 2..][..4].copy_from_slice(&(number as u32).to_be_bytes()),
        Source::Random => {
            let random = mix(number).to_be_bytes();
            bytes[SOURCE_IN_FRAME + 1..][..5].copy_from_slice(&random[..5]);
            bytes[CHADDR_IN_FRAME + 1..][..5].copy_from_slice(&random[..5]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Source MAC and client hardware address of the first frames.
    fn first(source: Source) -> Vec<([u8; 6], [u8; 6])> {
        let mut bytes = template(source);
        (0..100)
            .map(|number| {
                vary(&mut bytes, source, number);
                let at = |offset: usize| <[u8; 6]>::try_from(&bytes[offset..][..6]).unwrap();
                (at(SOURCE_IN_FRAME), at(CHADDR_IN_FRAME))
            })
            .collect()
    }

    #[test]
    fn one_mac_has_many_client_hardware_addresses() {
        let mac = Mac([2, 0xf1, 0, 0, 0, 1]);
        let frames = first(Source::One(mac));
        assert!(frames.iter().all(|(source, _)| *source == mac.0));
        assert_eq!(frames.iter().map(|(_, chaddr)| chaddr).collect::<BTreeSet<_>>().len(), frames.len());
    }

    #[test]
    fn random_macs_are_their_own_client_hardware_addresses() {
        let frames = first(Source::Random);
        assert!(frames.iter().all(|(source, chaddr)| source == chaddr && source[0] == 0x0a));
        assert_eq!(frames.iter().map(|(source, _)| source).collect::<BTreeSet<_>>().len(), frames.len());
    }
}
