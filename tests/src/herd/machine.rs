//! One client: what it says when its time has come, and when it is answered. RFC 2131, figure 5. It has no socket and no
//! clock; times are counted from the herd's start.

use std::{net::Ipv4Addr, time::Duration};

use dhcproto::v4::{DhcpOption, MessageType};

use super::{
    Member,
    frames::Reply,
    program::{Boot, LOADING, Program},
};
use crate::{
    mac::Mac,
    packets::{Frame, Network, client_frame, message_v4},
    random::Dice,
};

/// How far a member of the herd is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The address of its system's lease, while that is good; firmware's leases do not count.
    pub address: Option<Ipv4Addr>,
    /// From the first message to the system's first lease, loading included.
    pub took: Option<Duration>,
    /// Leases that its system got by looking for a server.
    pub leases: u32,
    /// Leases that it renewed.
    pub renewals: u32,
    /// When it latest got or renewed its system's lease.
    pub last_ack: Option<Duration>,
    /// Messages it sent.
    pub sent: u32,
    /// Of these, repeated because nobody answered the one before.
    pub repeated: u32,
    /// Leases that ran out.
    pub lost: u32,
    /// Times that a server said no.
    pub refused: u32,
}

/// Who asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// The firmware.
    Firmware,
    /// The system.
    System,
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    address: Ipv4Addr,
    server: Ipv4Addr,
    server_mac: Mac,
    rebind_at: Duration,
    expires_at: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Switched off, or loading.
    Silent,
    Selecting,
    Requesting(Offer),
    Bound(Lease),
    Renewing(Lease),
    Rebinding(Lease),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    mac: Mac,
    boot: Boot,
    leg: Leg,
    state: State,
    dice: Dice,
    xid: u32,
    /// When the state began.
    since: Duration,
    /// When it will say or do something by itself.
    due: Duration,
    /// How long it waits for an answer to its latest message.
    interval: Option<Duration>,
    /// When it was switched on.
    on: Duration,
    progress: Progress,
}

impl Machine {
    pub(super) fn new(member: &Member) -> Self {
        let [.., a, b, c, d] = member.mac.0;
        let mut machine = Self {
            mac: member.mac,
            boot: member.boot,
            leg: Leg::System,
            state: State::Silent,
            dice: Dice::new(u64::from(u32::from_be_bytes([a, b, c, d])) << 20),
            xid: 0,
            since: Duration::ZERO,
            due: Duration::ZERO,
            interval: None,
            on: Duration::ZERO,
            progress: Progress::default(),
        };
        machine.switch_on_again(member.on_after);
        machine
    }

    /// It loses its lease, and begins anew at this time.
    pub(super) fn switch_on_again(&mut self, at: Duration) {
        self.leg = if self.boot == Boot::Network { Leg::Firmware } else { Leg::System };
        (self.state, self.due, self.on) = (State::Silent, at, at);
        self.progress.address = None;
    }

    pub(super) fn mac(&self) -> Mac {
        self.mac
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn due(&self) -> Duration {
        self.due
    }

    fn program(&self) -> Program {
        match self.leg {
            Leg::Firmware => Program::Ipxe,
            Leg::System => Program::Dhclient,
        }
    }

    /// What it says now that it is due.
    pub(super) fn on_time(&mut self, now: Duration) -> Option<Vec<u8>> {
        match self.state {
            State::Silent => self.look_for_a_server(now),
            State::Selecting => match self.program().after_discover(self.interval, &mut self.dice) {
                Some(interval) => self.say(now, interval, true),
                None => self.load(now),
            },
            State::Requesting(_) => self.request_again(now),
            State::Bound(lease) => {
                self.enter(now, State::Renewing(lease));
                self.renew(now, lease.rebind_at, false)
            }
            State::Renewing(lease) if now >= lease.rebind_at => {
                self.enter(now, State::Rebinding(lease));
                self.renew(now, lease.expires_at, true)
            }
            State::Renewing(lease) => self.renew(now, lease.rebind_at, true),
            State::Rebinding(lease) if now >= lease.expires_at => {
                self.progress.address = None;
                self.progress.lost += 1;
                self.look_for_a_server(now)
            }
            State::Rebinding(lease) => self.renew(now, lease.expires_at, true),
        }
    }

    /// What it says to a server's message.
    pub(super) fn on_reply(&mut self, now: Duration, reply: &Reply) -> Option<Vec<u8>> {
        if reply.xid != self.xid {
            return None;
        }
        match (self.state, reply.kind) {
            (State::Selecting, MessageType::Offer) => {
                self.enter(now, State::Requesting(Offer { address: reply.address, server: reply.server }));
                let interval = self.program().after_request(None, &mut self.dice)?;
                self.say(now, interval, false)
            }
            (State::Requesting(_) | State::Renewing(_) | State::Rebinding(_), MessageType::Ack) => {
                self.bind(now, reply);
                None
            }
            (State::Requesting(_) | State::Renewing(_) | State::Rebinding(_), MessageType::Nak) => {
                self.progress.address = None;
                self.progress.refused += 1;
                self.look_for_a_server(now)
            }
            _ => None,
        }
    }

    fn bind(&mut self, now: Duration, reply: &Reply) {
        let is_new = matches!(self.state, State::Requesting(_));
        if self.leg == Leg::Firmware {
            self.load(now);
            return;
        }
        let Reply { address, server, server_mac, .. } = *reply;
        let (rebind_at, expires_at) = (now + reply.rebind, now + reply.lease);
        self.enter(now, State::Bound(Lease { address, server, server_mac, rebind_at, expires_at }));
        self.due = now + reply.renew;
        let progress = &mut self.progress;
        (progress.address, progress.last_ack) = (Some(address), Some(now));
        *(if is_new { &mut progress.leases } else { &mut progress.renewals }) += 1;
        progress.took.get_or_insert(now - self.on);
    }

    /// The firmware is done, with or without a lease; the system comes.
    fn load(&mut self, now: Duration) -> Option<Vec<u8>> {
        (self.leg, self.state, self.due) = (Leg::System, State::Silent, now + LOADING);
        None
    }

    fn enter(&mut self, now: Duration, state: State) {
        (self.state, self.since, self.interval) = (state, now, None);
    }

    fn look_for_a_server(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.enter(now, State::Selecting);
        self.xid = self.dice.roll() as u32;
        let interval = self.program().after_discover(None, &mut self.dice)?;
        self.say(now, interval, false)
    }

    fn request_again(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.program().looks_elsewhere(now - self.since) {
            return self.look_for_a_server(now);
        }
        match self.program().after_request(self.interval, &mut self.dice) {
            Some(interval) => self.say(now, interval, true),
            None => self.load(now),
        }
    }

    /// Asks for its lease to go on, at the latest until `end` by this way.
    fn renew(&mut self, now: Duration, end: Duration, again: bool) -> Option<Vec<u8>> {
        if !again {
            self.xid = self.dice.roll() as u32;
        }
        let interval = self.program().after_request(self.interval, &mut self.dice)?;
        let frame = self.say(now, interval, again);
        self.due = self.due.min(end);
        frame
    }

    /// The message of its state, after which it waits.
    fn say(&mut self, now: Duration, wait: Duration, again: bool) -> Option<Vec<u8>> {
        (self.interval, self.due) = (Some(wait), now + wait);
        self.progress.sent += 1;
        self.progress.repeated += u32::from(again);
        let frame = match self.state {
            State::Silent | State::Bound(_) => return None,
            State::Selecting => self.message(MessageType::Discover, None, &[]),
            State::Requesting(offer) => {
                let options =
                    [DhcpOption::RequestedIpAddress(offer.address), DhcpOption::ServerIdentifier(offer.server)];
                self.message(MessageType::Request, None, &options)
            }
            State::Renewing(lease) => {
                let frame = self.message(MessageType::Request, Some(lease.address), &[]);
                to_server(frame, &lease)
            }
            State::Rebinding(lease) => self.message(MessageType::Request, Some(lease.address), &[]),
        };
        Some(frame.bytes())
    }

    /// A broadcast; `own`: the address that it uses.
    fn message(&self, kind: MessageType, own: Option<Ipv4Addr>, options: &[DhcpOption]) -> Frame {
        let mut message = message_v4(kind, self.mac);
        message.set_xid(self.xid).set_ciaddr(own.unwrap_or(Ipv4Addr::UNSPECIFIED));
        options.iter().for_each(|option| drop(message.opts_mut().insert(option.clone())));
        let mut frame = client_frame(&message, self.mac);
        if let (Some(own), Network::V4 { source, .. }) = (own, &mut frame.network) {
            *source = own;
        }
        frame
    }
}

/// The same, to one server alone.
fn to_server(mut frame: Frame, lease: &Lease) -> Frame {
    frame.destination = lease.server_mac;
    if let Network::V4 { destination, .. } = &mut frame.network {
        *destination = lease.server;
    }
    frame
}

#[cfg(test)]
mod tests {
    use dhcproto::{Decodable as _, Decoder, v4::Message};

    use super::*;

    const SERVER: Mac = Mac([2, 0x77, 0, 0, 0, 1]);

    fn machine(boot: Boot) -> Machine {
        Machine::new(&Member { mac: Mac::machine(0), place: 0, on_after: Duration::from_secs(1), boot })
    }

    fn reply(machine: &Machine, kind: MessageType) -> Reply {
        Reply {
            to: machine.mac,
            xid: machine.xid,
            kind,
            address: Ipv4Addr::new(10, 77, 1, 2),
            server: Ipv4Addr::new(10, 77, 0, 1),
            server_mac: SERVER,
            lease: Duration::from_secs(120),
            renew: Duration::from_secs(15),
            rebind: Duration::from_secs(40),
        }
    }

    /// Destination MAC and message type of a frame.
    fn said(frame: Option<&Vec<u8>>) -> Option<(Mac, u8)> {
        let frame = frame?;
        let message = Message::decode(&mut Decoder::new(&frame[42..])).unwrap();
        Some((Mac(frame[..6].try_into().unwrap()), message.opts().msg_type()?.into()))
    }

    /// Until somebody else has to do something: what it says, and when.
    fn run(machine: &mut Machine, until: Duration) -> Vec<(u64, Mac, u8)> {
        let mut all = Vec::new();
        while machine.due() <= until {
            let now = machine.due();
            all.extend(said(machine.on_time(now).as_ref()).map(|(to, kind)| (now.as_secs(), to, kind)));
        }
        all
    }

    fn answered(machine: &mut Machine, now: Duration) {
        let offer = reply(machine, MessageType::Offer);
        let request = machine.on_reply(now, &offer);
        assert_eq!(said(request.as_ref()), Some((Mac::BROADCAST, 3)));
        let ack = reply(machine, MessageType::Ack);
        assert!(machine.on_reply(now, &ack).is_none());
    }

    #[test]
    fn a_lease_is_got_renewed_by_unicast_then_by_broadcast_and_lost() {
        let s = Duration::from_secs;
        let mut machine = machine(Boot::Disk);
        assert_eq!(run(&mut machine, s(1)), [(1, Mac::BROADCAST, 1)]);
        answered(&mut machine, s(2));
        let progress = machine.progress();
        assert_eq!((progress.leases, progress.took, progress.repeated), (1, Some(s(1)), 0));

        let renewing = run(&mut machine, s(41));
        assert_eq!(renewing[0], (17, SERVER, 3));
        assert!(renewing.len() >= 2 && renewing.iter().all(|(_, to, kind)| (*to, *kind) == (SERVER, 3)));
        let ack = reply(&machine, MessageType::Ack);
        assert!(machine.on_reply(s(41), &ack).is_none());
        assert_eq!((machine.progress().renewals, machine.progress().last_ack), (1, Some(s(41))));

        let all = run(&mut machine, s(41 + 119));
        let rebinding: Vec<_> = all.iter().filter(|(_, to, _)| *to == Mac::BROADCAST).collect();
        assert!(rebinding[0].0 == 81 && rebinding.iter().all(|(_, _, kind)| *kind == 3), "{all:?}");
        assert!(machine.progress().address.is_some());
        let lost = run(&mut machine, s(41 + 120));
        assert_eq!(lost, [(161, Mac::BROADCAST, 1)]);
        assert_eq!((machine.progress().address, machine.progress().lost), (None, 1));
    }

    #[test]
    fn an_offer_that_is_not_confirmed_is_forgotten_and_a_no_is_taken_at_once() {
        let s = Duration::from_secs;
        let mut machine = machine(Boot::Disk);
        run(&mut machine, s(1));
        let offer = reply(&machine, MessageType::Offer);
        machine.on_reply(s(2), &offer);
        let all = run(&mut machine, s(40));
        let again = all.iter().position(|(_, _, kind)| *kind == 1).unwrap();
        assert!(all[again].0 >= 12 && again > 0, "{all:?}");
        let offer = reply(&machine, MessageType::Offer);
        machine.on_reply(s(40), &offer);
        let nak = reply(&machine, MessageType::Nak);
        assert_eq!(said(machine.on_reply(s(41), &nak).as_ref()), Some((Mac::BROADCAST, 1)));
        assert_eq!(machine.progress().refused, 1);
    }

    #[test]
    fn firmware_comes_before_the_system_whether_it_is_answered_or_not() {
        let s = Duration::from_secs;
        let mut silent = machine(Boot::Network);
        let seconds: Vec<_> = run(&mut silent, s(25)).iter().map(|(at, ..)| *at).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 24]);
        let mut lucky = machine(Boot::Network);
        run(&mut lucky, s(1));
        answered(&mut lucky, s(2));
        assert_eq!((lucky.progress().leases, lucky.progress().address), (0, None), "firmware's do not count");
        assert_eq!(run(&mut lucky, s(10)), [(10, Mac::BROADCAST, 1)]);
        answered(&mut lucky, s(10));
        assert_eq!((lucky.progress().leases, lucky.progress().took), (1, Some(s(9))));
        lucky.switch_on_again(s(11));
        assert_eq!(lucky.progress().address, None);
        assert_eq!(run(&mut lucky, s(11)), [(11, Mac::BROADCAST, 1)]);
    }

    #[test]
    fn another_s_answer_is_nobody_s() {
        let mut machine = machine(Boot::Disk);
        run(&mut machine, Duration::from_secs(1));
        let mut offer = reply(&machine, MessageType::Offer);
        offer.xid ^= 1;
        assert!(machine.on_reply(Duration::from_secs(2), &offer).is_none());
    }
}
