//! The floods that machines have to live with.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Group;
use crate::{
    flood::{Flood, Limits, Mode},
    mac::Mac,
    topology::Lab,
    trickle::{Source, Trickle},
    wait,
};

/// Who floods, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flooding {
    /// Nobody.
    None,
    /// One machine as fast as it can, with ever new client hardware addresses.
    OneMac,
    /// A new MAC for every frame, as fast as possible if no rate is given.
    RandomMacs { rate_pps: Option<u64> },
}

impl Flooding {
    /// Whether the guard must see to it that this group is served (design §9): everybody when one machine floods; under
    /// random MACs everybody but the strangers on their port.
    pub(super) fn promises(self, group: Group) -> bool {
        !matches!((self, group), (Self::RandomMacs { .. }, Group::Strangers))
    }
}

const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 0x42]);
const SEED: u64 = 0x6463_7067_7561_7264;
/// Whatever happens, no flood lasts longer.
const MAX_TIME: Duration = Duration::from_secs(60);
/// A flood that has not begun by then will not.
const START: Duration = Duration::from_secs(20);
/// So many frames of it have arrived before anybody asks: all bursts are spent, many times over.
const BEGUN: u64 = 2_000;
/// Without the guard the server must have answered so often, too.
const ANSWERED: u64 = 1_000;

/// A flood into the uplink; it ends when it is dropped.
pub(super) struct Running<'a> {
    lab: &'a Lab,
    flood: Option<Flood>,
    trickle: Option<Trickle>,
    since: Instant,
    /// Frames that the uplink had received then.
    received: u64,
}

impl<'a> Running<'a> {
    /// Starts it and waits until it is in full swing.
    pub(super) fn start(flooding: &Flooding, lab: &'a Lab, guarded: bool) -> Result<Self> {
        let from = lab.injection(0);
        let before = received(lab)?;
        let at_full_rate = |mode| Flood::start(&from, mode, Limits::time(MAX_TIME));
        let paced = |source, rate| Trickle::start_at(&from, source, rate, MAX_TIME);
        let (mut flood, mut trickle) = (None, None);
        match *flooding {
            Flooding::None => {}
            Flooding::OneMac => {
                flood = Some(at_full_rate(Mode::RandomChaddr { source: FLOODER, seed: SEED })?);
                // The server feels it only so; the guard treats its frames like the others.
                if !guarded {
                    trickle = Some(Trickle::start(&from, FLOODER, MAX_TIME)?);
                }
            }
            Flooding::RandomMacs { rate_pps: None } => flood = Some(at_full_rate(Mode::Random { seed: SEED })?),
            Flooding::RandomMacs { rate_pps: Some(rate) } => trickle = Some(paced(Source::Random, rate)?),
        }
        if *flooding != Flooding::None {
            wait::until("the flood at the uplink", START, || Ok(received(lab)? - before >= BEGUN))?;
            if !guarded {
                wait::until("the server's answers", START, || Ok(lab.server.logged().offer >= ANSWERED))?;
            }
        }
        Ok(Self { lab, flood, trickle, since: Instant::now(), received: received(lab)? })
    }

    /// Stops it: frames that came in by the uplink per second since it was in full swing.
    pub(super) fn stop(self) -> Result<f64> {
        let frames = received(self.lab)? - self.received;
        let pps = frames as f64 / self.since.elapsed().as_secs_f64();
        if let Some(flood) = self.flood {
            flood.stop()?;
        }
        drop(self.trickle);
        Ok(pps)
    }
}

fn received(lab: &Lab) -> Result<u64> {
    Ok(lab.received("uplink0")?.frames)
}
