//! Our parser, the reference, etherparse and dhcproto on the same frames: all combinations of headers and messages, every
//! frame cut at every byte, and frames with mistakes in them.

use std::collections::BTreeMap;

use dhcp_guard_common::parse::Towards;
use fuzz::{
    check,
    mutate::{Dice, mutated},
    peers::{self, Difference},
    shapes::{self, headers::Shape},
};

/// How often each difference was met.
#[derive(Default)]
struct Met {
    frames: usize,
    dhcp: usize,
    differences: BTreeMap<Difference, usize>,
}

impl Met {
    /// Fails the test, with the frame, if the parsers differ in a way that is not meant to be.
    fn compare(&mut self, frame: &[u8]) {
        self.frames += 1;
        let seen = std::panic::catch_unwind(|| {
            check::frame(frame);
            let ours = check::ours(frame);
            (ours.is_some(), peers::compare(frame, ours.as_ref()))
        });
        let Ok((is_dhcp, differences)) = seen else { panic!("see above; the frame: {frame:02x?}") };
        self.dhcp += usize::from(is_dhcp);
        for difference in differences {
            *self.differences.entry(difference).or_default() += 1;
        }
    }

    fn print(&self, what: &str) {
        println!("{what}: {} frames, {} of them DHCP; {:?}", self.frames, self.dhcp, self.differences);
    }
}

#[test]
fn all_combinations() {
    let mut met = Met::default();
    for (family, messages, networks) in shapes::families() {
        for tags in shapes::tags() {
            for network in &networks {
                for (_, message) in &messages {
                    for towards in [Towards::Server, Towards::Client] {
                        let plain = Shape::plain(family, towards, message);
                        met.compare(&Shape { tags: tags.clone(), network: network.clone(), ..plain }.bytes());
                    }
                }
            }
        }
    }
    met.print("all combinations");
    assert!(met.frames > 100_000 && met.dhcp > met.frames / 2, "{} frames, {} DHCP", met.frames, met.dhcp);
}

#[test]
fn every_port_in_every_kind_of_packet() {
    let mut met = Met::default();
    for (family, messages, networks) in shapes::families() {
        for network in networks {
            for port in (0..600).chain([67 << 8, 68 << 8, 546 << 6, u16::MAX]) {
                let network = network.clone();
                met.compare(&Shape { network, port, ..Shape::plain(family, Towards::Server, &messages[1].1) }.bytes());
            }
        }
    }
    met.print("ports");
}

#[test]
fn cut_at_every_byte() {
    let mut met = Met::default();
    for (_, frame) in shapes::frames() {
        (0..frame.len()).for_each(|len| met.compare(&frame[..len]));
    }
    met.print("cut");
}

#[test]
fn with_mistakes() {
    let frames = shapes::frames();
    let mut dice = Dice::new(0x6463_6870);
    let mut met = Met::default();
    while met.frames < 300_000 {
        let [(_, frame), (_, other)] = [dice.one_of(&frames), dice.one_of(&frames)];
        met.compare(&mutated(frame, other, &mut dice));
    }
    met.print("with mistakes");
    // A difference that is never met may be one that is no more.
    let never: Vec<_> = Difference::ALL.iter().filter(|difference| !met.differences.contains_key(difference)).collect();
    assert!(never.is_empty(), "never met: {never:?}");
}
