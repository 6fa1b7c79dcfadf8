//! Many machines that flood at once, each at a modest rate: one thread sends for all of them, through packet sockets.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    mac::Mac,
    paced::{Pace, Paced},
    packet_socket::PacketSocket,
    packets::discover,
    topology::Injection,
};

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(2);

/// A running stampede; stopped on drop.
#[derive(Debug)]
pub struct Stampede(Paced);

impl Stampede {
    /// Each of these MACs, from where it is, starts to send so many DISCOVERs a second, for `max_time` at most.
    pub fn start(machines: &[(Injection, Mac)], rate_pps: u64, max_time: Duration) -> Result<Self> {
        let open = |(from, mac): &(Injection, Mac)| {
            Ok((PacketSocket::open(&from.netns, &from.interface)?, discover(*mac).bytes()))
        };
        let machines: Vec<_> = machines.iter().map(open).collect::<Result<_>>()?;
        let pace = Pace { rate_pps, tick: TICK, most: rate_pps.div_ceil(20), max_time };
        let send = move |_| {
            for (socket, frame) in &machines {
                // A full queue loses the frame, as a wire would.
                let _ = socket.send(frame);
            }
        };
        Paced::start("stampede", pace, send).map(Self)
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.0.began()
    }

    /// Stops, and answers how many frames each machine sent.
    #[must_use]
    pub fn stop(self) -> u64 {
        self.0.stop()
    }
}
