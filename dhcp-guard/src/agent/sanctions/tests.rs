//! Incidents second by second, with made-up pictures and no clock.

mod changes;

use std::{sync::mpsc, time::Duration};

use dhcp_guard_common::{
    layout::{PortCounters, Troubles},
    verdict::{MessageType, Reason},
};

use super::*;
use crate::{
    agent::{
        inventory::Machines,
        orders::Message,
        picture::{ClientPicture, PortPicture},
        plan::Plan,
        report,
        requests::{About, Change, Denied},
    },
    config::Config,
    dataplane::{clock::Moment, interface::Interface},
    engine::{Standing, Totals, Window},
    governor::{Action, Author, Order},
    inventory::{Inventory, watch::Known},
    mac::Mac,
    model::{
        AllowRequest, Changed, EventKind, Explanation, HoldRequest, Kind, Named, QuarantineRequest, ReleaseRequest,
        State, UndoRequest,
    },
    who::Who,
};

const HZ: u32 = 250;
/// Ticks at the start.
const START: u64 = 1 << 32;

/// A host with `ports` interfaces, tap1 and so on, and the agent's decisions about it.
struct Lab {
    sanctioner: Sanctioner,
    second: u64,
    counters: Vec<PortCounters>,
    replies: Vec<u64>,
    /// On tap2.
    distinct: Option<u64>,
    orders: mpsc::Receiver<Message>,
    journal: Arc<Journal>,
    facts: watch::Sender<Arc<HostFacts>>,
}

/// What a client sends in a second.
#[derive(Clone, Copy, Debug)]
struct Sends {
    port: u32,
    client: u8,
    pps: u64,
    known: bool,
}

impl Sends {
    fn mac(&self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.client])
    }

    fn key(&self) -> ClientKey {
        ClientKey::from_mac(self.port, self.mac().0)
    }
}

fn flood(port: u32) -> Sends {
    Sends { port, client: 9, pps: 4000, known: false }
}

fn calm(port: u32) -> Sends {
    Sends { port, client: 1, pps: 1, known: true }
}

impl Lab {
    fn new(ports: u32, toml: &str, inventory: &str) -> Self {
        let config = Config::from_toml(toml).unwrap();
        let interfaces = (1..=ports).map(|n| Interface::bare(&format!("tap{n}"), n));
        let plan = Plan::new(&config, interfaces.collect(), false);
        let (inventory, problems) = Inventory::from_csv(inventory.as_bytes()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let known = Known { inventory: Arc::new(inventory), warnings: Vec::new() };
        let rules = config.governor_rules();
        let context = Arc::new(Context {
            config,
            config_path: None,
            plan,
            modes: Vec::new(),
            machines: Arc::new(Machines::new(known)),
            started: Timestamp::UNIX_EPOCH,
            last_agent: Some(Duration::ZERO),
            warnings: Vec::new(),
        });
        let (messages, orders) = mpsc::sync_channel(1000);
        let (facts, receiver) = watch::channel(Arc::new(HostFacts { known: true, ..HostFacts::default() }));
        let journal = Arc::new(Journal::default());
        let (actuators, _, _) = actuators::Dispatcher::start(Vec::new());
        let hands = Hands {
            orders: orders::Sender::new(messages),
            journal: Arc::clone(&journal),
            audit: audit::Handle::nowhere(),
            actuators,
        };
        let counters = vec![PortCounters::ZERO; ports as usize + 1];
        let first = picture(&context, 0, &counters, &[], &[], Vec::new());
        let sanctioner = Sanctioner::new(context, hands, Clock::start(), receiver, Governor::new(rules), &first);
        let replies = vec![0; ports as usize + 1];
        let mut lab = Self { sanctioner, second: 0, counters, replies, distinct: Some(0), orders, journal, facts };
        lab.tick(&[]);
        lab
    }

    /// One second. Whoever sends more than 2 is over its limit; whoever is quarantined is dropped whole.
    fn tick(&mut self, sends: &[Sends]) -> Arc<Picture> {
        self.second += 1;
        let mut windows = vec![Window { length: Duration::from_secs(1), ..Window::default() }; self.counters.len()];
        let mut clients = Vec::new();
        for one in sends {
            let over = one.pps.saturating_sub(2);
            let window = Window { packets: one.pps, excess: over, own_excess: over, length: Duration::from_secs(1) };
            let slot = one.port as usize;
            let reasons = &mut self.counters[slot].reasons;
            reasons[Reason::DropClientLimit.index()] += over;
            reasons[Reason::PassKnown.index()] += one.pps - over;
            self.counters[slot].messages[MessageType::Request.index()] += one.pps;
            windows[slot].packets += one.pps;
            windows[slot].excess += over;
            let ticks = START + self.second * u64::from(HZ);
            let totals = Totals { generation: START, latest: ticks, packets: one.pps, excess: over, own_excess: over };
            let standing = standing_of(&window, self.second);
            clients.push(ClientPicture {
                key: one.key(),
                who: Who::Direct(one.mac()),
                known: one.known,
                totals,
                window,
                standing,
            });
        }
        let context = &self.sanctioner.context;
        let mut picture = picture(context, self.second, &self.counters, &windows, &self.replies, clients);
        if let Some(port) = picture.ports.get_mut(2) {
            port.distinct = self.distinct;
        }
        self.sanctioner.step(picture)
    }

    /// The same for so many seconds.
    fn run(&mut self, seconds: u64, sends: &[Sends]) -> Arc<Picture> {
        (1..seconds).for_each(|_| drop(self.tick(sends)));
        self.tick(sends)
    }

    fn orders(&self) -> Vec<Order> {
        let batches = self.orders.try_iter().map(|message| match message {
            Message::Orders(batch) => batch.orders,
            Message::Stop | Message::Change(_) => panic!("nobody stops or changes it"),
        });
        batches.flatten().collect()
    }

    fn kinds(&self) -> Vec<EventKind> {
        self.journal.latest(1000).into_iter().map(|event| event.kind).collect()
    }

    fn count(&self, kind: EventKind) -> usize {
        self.kinds().into_iter().filter(|one| *one == kind).count()
    }

    fn ask(&mut self, change: &Change) -> Result<Changed, Denied> {
        let author = Author::Person { uid: 0, user: Some("root".into()), pid: Some(1) };
        self.sanctioner.change(change, &author)
    }

    fn explain(&self, port: &str, client: Option<u8>) -> Explanation {
        let mac = client.map(|last| Mac([2, 0, 0, 0, 0, last]));
        let mut explained = self.sanctioner.explain(&About { port: Some(port.into()), mac });
        assert_eq!(explained.subjects.len(), 1, "{explained:?}");
        explained.subjects.remove(0)
    }

    /// Who is in quarantine.
    fn covered(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .sanctioner
            .governor
            .state()
            .quarantines
            .values()
            .flat_map(|quarantine| &quarantine.target.subjects)
            .map(ToString::to_string)
            .collect();
        all.sort();
        all
    }
}

/// Whoever has excess is an offender, for simplicity's sake at once.
fn standing_of(window: &Window, second: u64) -> Standing {
    let now = Duration::from_secs(second);
    if window.excess > 0 { Standing::Offender { since: now, last_excess: now } } else { Standing::Normal }
}

fn picture(
    context: &Arc<Context>,
    second: u64,
    counters: &[PortCounters],
    windows: &[Window],
    replies: &[u64],
    clients: Vec<ClientPicture>,
) -> Picture {
    let at = Timestamp::from_second(1_700_000_000 + i64::try_from(second).unwrap()).unwrap();
    let monotonic = Duration::from_secs(second);
    let moment = Moment { wall: at, monotonic, ticks: START + second * u64::from(HZ), ticks_per_s: HZ };
    let ports = counters.iter().enumerate().map(|(slot, counters)| PortPicture {
        counters: *counters,
        window: windows.get(slot).copied().unwrap_or_default(),
        standing: windows.get(slot).map_or(Standing::Normal, |window| standing_of(window, second)),
        distinct: Some(0),
        excess_ticks: (0, 0),
        replies: replies.get(slot).copied(),
    });
    let (ports, troubles) = (ports.collect(), Troubles::default());
    Picture {
        context: Arc::clone(context),
        moment,
        ports,
        clients,
        non_dhcp: HashMap::new(),
        troubles,
        server_messages: None,
        sanctioned: Arc::default(),
    }
}

fn named(port: &str) -> Named {
    Named { port: port.into(), mac: None }
}

fn add(ports: &[&str], ttl_s: Option<u64>) -> Change {
    let several = (ports.len() > 1).then_some(ports.len());
    Change::Quarantine(QuarantineRequest {
        targets: ports.iter().map(|port| named(port)).collect(),
        action: crate::governor::Sanction::Mute,
        ttl_s,
        max: several,
        confirm: several,
        reason: "test".into(),
        dry_run: false,
        request_id: None,
    })
}

fn release(port: &str) -> Change {
    Change::Release(ReleaseRequest {
        id: None,
        target: Some(named(port)),
        reason: "test".into(),
        dry_run: false,
        request_id: None,
    })
}

fn hold(on: bool) -> Change {
    Change::Hold(HoldRequest { hold: on, reason: "test".into(), dry_run: false, request_id: None })
}

const NOBODY: &str = "server_id\n";

/// An inventory in which each port is one machine's: em-1 on tap1 and so on.
fn owned(ports: u32) -> String {
    (1..=ports).fold("server_id,interface\n".to_owned(), |text, port| text + &format!("em-{port},tap{port}\n"))
}

#[test]
fn a_flooder_is_muted_after_ten_seconds_and_its_neighbours_are_not() {
    let mut lab = Lab::new(5, "", "server_id,interface\nem-17,tap2\n");
    let sends = [calm(1), flood(2), calm(3)];
    lab.run(9, &sends);
    assert_eq!((lab.covered().len(), lab.orders().len()), (0, 0));
    let picture = lab.tick(&sends);
    assert_eq!(lab.covered(), ["port tap2"]);
    let orders = lab.orders();
    assert!(matches!(orders[..], [ref order] if matches!(order.action(), Action::Impose(_))), "{orders:?}");
    let quarantine = &picture.sanctioned.quarantines[0];
    assert_eq!((quarantine.server_id.as_deref(), quarantine.by.as_str()), (Some("em-17"), "engine"));
    assert!(quarantine.reason.contains("5 times its limit of 50 pps"), "{}", quarantine.reason);
    assert_eq!(picture.sanctioned.states[&Subject::Port(2)], State::Quarantined);
    assert_eq!(picture.sanctioned.states[&Subject::Client(flood(2).key())], State::Quarantined);
    assert_eq!(picture.sanctioned.states.get(&Subject::Port(1)), None);
    let event = lab.journal.latest(1).remove(0);
    assert_eq!((event.kind, event.server_id.as_deref()), (EventKind::QuarantineBegan, Some("em-17")));
    lab.run(5, &sends);
    assert_eq!(lab.orders(), [], "it is there already");
    let said = lab.explain("tap2", None);
    assert_eq!(said.state, State::Quarantined);
    assert!(said.quarantine.unwrap().times.unwrap().first_excess.is_some());
}

#[test]
fn among_others_the_client_is_muted_and_not_its_port() {
    let mut lab = Lab::new(4, "", NOBODY);
    let picture = lab.run(11, &[calm(2), flood(2)]);
    assert_eq!(lab.covered(), ["client 02:00:00:00:00:09 on port tap2"]);
    assert_eq!(picture.sanctioned.states.get(&Subject::Client(calm(2).key())), None);
}

#[test]
fn random_macs_do_not_cost_their_neighbours_the_port_unless_it_is_one_machine_s() {
    for (inventory, muted) in [(NOBODY, 0), ("server_id,interface\nem-17,tap2\n", 1)] {
        let mut lab = Lab::new(4, "", inventory);
        lab.distinct = None;
        let picture = lab.run(11, &[calm(2)]);
        assert_eq!(lab.covered().len(), muted, "{inventory}");
        let state = picture.sanctioned.states[&Subject::Port(2)];
        assert_eq!(state, if muted == 1 { State::Quarantined } else { State::HeldBack });
    }
}

#[test]
fn it_ends_when_it_is_quiet_and_lasts_longer_the_next_time() {
    let mut lab = Lab::new(4, "[quarantine]\nfirst_s = 30\nquiet_s = 10\n", &owned(4));
    let others = [calm(1), calm(3)];
    let floods = [calm(1), flood(2), calm(3)];
    lab.run(10, &floods);
    let first = lab.sanctioner.governor.state().quarantines.values().next().unwrap().clone();
    assert_eq!(lab.covered().len(), 1);
    // It goes on for two minutes, and so does the quarantine; then it is quiet for ten seconds, and out.
    lab.run(120, &floods);
    assert_eq!(lab.covered().len(), 1, "it is not let out while it floods");
    let mut quiet = 0;
    while !lab.covered().is_empty() {
        lab.tick(&others);
        quiet += 1;
        assert!(quiet < 40, "it never ends");
    }
    assert!(quiet >= 10, "after {quiet} s");
    let calm_again = Sends { pps: 1, ..flood(2) };
    let picture = lab.tick(&[calm(1), calm_again, calm(3)]);
    assert_eq!(picture.sanctioned.states[&Subject::Port(2)], State::Probation);
    lab.run(11, &floods);
    let second = lab.sanctioner.governor.state().quarantines.values().next().unwrap().clone();
    assert_eq!((first.repeat, second.repeat), (0, 1));
    let length = |one: &crate::governor::Quarantine| one.until.duration_since(one.since).as_secs();
    let doubled = length(&second) * 100 / length(&first);
    assert!((160..=250).contains(&doubled), "{} s, then {} s", length(&first), length(&second));
    assert_eq!(lab.count(EventKind::QuarantineEnded), 1);
}

#[test]
fn of_thirty_floods_the_cap_is_muted_and_the_rest_is_held_back_and_told_once() {
    let mut lab = Lab::new(70, "", &owned(70));
    let sends: Vec<Sends> = (1..=70).map(|port| if port <= 30 { flood(port) } else { calm(port) }).collect();
    let picture = lab.run(40, &sends);
    assert_eq!(lab.covered().len(), 3);
    let held = picture.sanctioned.states.values().filter(|state| **state == State::HeldBack).count();
    assert_eq!((held, lab.count(EventKind::QuarantineHeldBack)), (27, 27));
    let listed = report::offenders(&picture).offenders;
    let ports = |state| listed.iter().filter(|one| one.kind == Kind::Port && one.state == state).count();
    assert_eq!((ports(State::HeldBack), ports(State::Quarantined)), (27, 3));
    assert!(picture.sanctioned.warnings[0].starts_with("27 offenders held back"), "{:?}", picture.sanctioned.warnings);
    let held_port = (1..=30).find(|port| picture.sanctioned.states[&Subject::Port(*port)] == State::HeldBack).unwrap();
    let said = lab.explain(&format!("tap{held_port}"), None);
    assert_eq!((said.state, said.next.as_str()), (State::HeldBack, "quarantine as soon as the cap has room"));
    let calm_again = lab.run(11, &sends[30..]);
    assert!(!calm_again.sanctioned.states.values().any(|state| *state == State::HeldBack));
}

#[test]
fn when_most_ports_are_over_their_limits_nobody_is_muted() {
    let mut lab = Lab::new(10, "", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port <= 6 { flood(port) } else { calm(port) }).collect();
    let picture = lab.run(60, &sends);
    assert_eq!((lab.covered().len(), lab.count(EventKind::Systemic)), (0, 1));
    assert!(picture.sanctioned.warnings[0].starts_with("systemic trouble: 6 of 10 ports"));
    assert_eq!(picture.sanctioned.states[&Subject::Port(1)], State::HeldBack);
}

#[test]
fn when_servers_fall_silent_nobody_is_muted() {
    let mut lab = Lab::new(10, "", NOBODY);
    let asks: Vec<Sends> = (1..=10).map(calm).collect();
    for _ in 0..60 {
        lab.replies.iter_mut().for_each(|replies| *replies += 1);
        lab.tick(&asks);
    }
    let mut impatient = asks.clone();
    impatient.push(flood(3));
    lab.run(60, &impatient[..10]);
    assert_eq!(lab.count(EventKind::Systemic), 1);
    lab.run(30, &impatient);
    assert_eq!(lab.covered().len(), 0);
    for _ in 0..70 {
        lab.replies.iter_mut().for_each(|replies| *replies += 1);
        lab.tick(&asks);
    }
    assert_eq!(lab.count(EventKind::SystemicOver), 1);
}

#[test]
fn classes_and_modes_decide_whether_there_is_any() {
    let toml = "[[port]]\ninterface = 'tap1'\nclass = 'off'\n[[port]]\ninterface = 'tap2'\nmode = 'monitor'\n\
                [[port]]\ninterface = 'tap3'\nclass = 'trusted'\n[[allow]]\ninterface = 'tap4'\n\
                [[port]]\ninterface = 'tap5'\nclass = 'hard'\n\
                [class.off]\nrate_pps = 50\nburst = 250\nquarantine = 'off'\n\
                [class.hard]\nrate_pps = 50\nburst = 250\nquarantine = 'isolate'\n";
    let mut lab = Lab::new(20, toml, &owned(20));
    let sends: Vec<Sends> = (1..=20).map(|port| if port <= 5 { flood(port) } else { calm(port) }).collect();
    let picture = lab.run(30, &sends);
    assert_eq!(lab.covered(), ["port tap5"]);
    assert_eq!(picture.sanctioned.quarantines[0].action, crate::governor::Sanction::Isolate);
    assert_eq!(lab.count(EventKind::QuarantineHeldBack), 0, "that is as somebody wanted it");
    assert!(lab.explain("tap1", None).next.contains("class off has that switched off"));
}

#[test]
fn whoever_is_allowed_on_a_muted_port_is_not_muted() {
    let mut lab = Lab::new(4, "[[allow]]\ninterface = 'tap1'\nmac = '02:00:00:00:00:02'\n", NOBODY);
    lab.ask(&add(&["tap1"], None)).unwrap();
    let allow = AllowRequest {
        target: Named { port: "tap1".into(), mac: Some(calm(1).mac()) },
        for_s: None,
        reason: "boots all day".into(),
        dry_run: false,
        request_id: None,
    };
    lab.ask(&Change::Allow(allow)).unwrap();
    let other = |client| Sends { client, ..calm(1) };
    let picture = lab.run(2, &[calm(1), other(2), other(3)]);
    let said = lab.explain("tap1", Some(1));
    assert_eq!((said.because.as_str(), said.state), ("it is on the allowlist (by root: boots all day)", State::Normal));
    assert!(said.quarantine.is_none() && said.next_in_s.is_none(), "{said:?}");
    assert_eq!(lab.explain("tap1", Some(2)).because, "it is on the configuration's allowlist");
    let muted = lab.explain("tap1", Some(3));
    assert_eq!((muted.because.as_str(), muted.state), ("test", State::Quarantined));
    let states = &picture.sanctioned.states;
    let in_it = |one: Sends| states.contains_key(&Subject::Client(one.key()));
    assert_eq!([calm(1), other(2), other(3)].map(in_it), [false, false, true]);
    assert_eq!(lab.explain("tap1", None).state, State::Quarantined);
}

#[test]
fn a_few_packets_at_once_that_all_passed_are_no_excess() {
    let mut lab = Lab::new(4, "[limits]\nclient_rate_pps = 1\n", NOBODY);
    lab.run(2, &[Sends { pps: 2, ..calm(1) }, Sends { pps: 3, ..calm(2) }]);
    assert!(lab.explain("tap1", Some(1)).because.contains("it keeps to its limit"));
    let said = lab.explain("tap1", None);
    assert!(said.because.contains("it keeps to its limit"), "{}", said.because);
    lab.tick(&[Sends { pps: 3, ..calm(3) }]);
    let record = lab.sanctioner.engine.record(Subject::Client(calm(3).key())).unwrap();
    assert!(record.over_since.is_some());
}

#[test]
fn who_is_protected_is_held_back() {
    let mut lab = Lab::new(10, "", "server_id,interface,protected\nbastion,tap2,true\n");
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.run(20, &sends);
    assert_eq!(lab.covered().len(), 0);
    let said = lab.explain("tap2", None);
    assert_eq!(said.held_back.as_deref(), Some("port tap2 is protected: the inventory protects bastion"));
    let refused = lab.ask(&add(&["tap2"], None)).unwrap_err();
    assert_eq!(refused, Denied::Rules("port tap2 is protected: the inventory protects bastion".into()));
}

#[test]
fn people_add_release_hold_allow_and_undo() {
    let mut lab = Lab::new(10, "", NOBODY);
    let sends: Vec<Sends> = (1..=10).map(calm).collect();
    lab.run(5, &sends);
    let before = lab.sanctioner.governor.state().clone();
    lab.run(5, &sends);
    let done =
        |changes: &[&str]| Ok(Changed { dry_run: false, changes: changes.iter().map(|it| (*it).to_owned()).collect() });
    assert_eq!(lab.ask(&add(&["tap1"], Some(600))), done(&["port tap1 is muted for 10 min"]));
    assert_eq!(lab.ask(&add(&["tap2", "tap3"], Some(60))).unwrap().changes.len(), 2);
    assert_eq!(lab.ask(&hold(true)), done(&["automatic quarantine is on hold"]));
    let allow = |port: &str| AllowRequest {
        target: named(port),
        for_s: Some(7200),
        reason: "test".into(),
        dry_run: false,
        request_id: None,
    };
    assert_eq!(lab.ask(&Change::Allow(allow("tap4"))), done(&["port tap4 is allowed for 2 h"]));
    assert_eq!(lab.ask(&release("tap1")), done(&["port tap1 is no longer muted"]));
    assert_eq!(lab.orders().len(), 5);
    assert_eq!(lab.covered(), ["port tap2", "port tap3"]);
    let undo =
        |since_s, dry_run| Change::Undo(UndoRequest { since_s, reason: "test".into(), dry_run, request_id: None });
    let would = lab.ask(&undo(5, true)).unwrap();
    assert_eq!((would.dry_run, would.changes.len()), (true, 4));
    assert_eq!(lab.covered().len(), 2, "that was a dry run");
    lab.ask(&undo(5, false)).unwrap();
    let state = lab.sanctioner.governor.state();
    assert_eq!((&state.quarantines, &state.hold, &state.allowed), (&before.quarantines, &before.hold, &before.allowed));
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut lab = Lab::new(10, "", NOBODY);
    let many: Vec<String> = (1..=10).map(|port| format!("tap{port}")).collect();
    let all: Vec<&str> = many.iter().map(String::as_str).collect();
    let unconfirmed = |ports: &[&str]| {
        let Change::Quarantine(request) = add(ports, None) else { unreachable!() };
        Change::Quarantine(QuarantineRequest { max: None, confirm: None, ..request })
    };
    assert!(matches!(lab.ask(&unconfirmed(&[])), Err(Denied::Rules(_))));
    assert!(matches!(lab.ask(&unconfirmed(&all)), Err(Denied::Rules(_))));
    assert!(matches!(lab.ask(&unconfirmed(&["*"])), Err(Denied::Nonsense(_))));
    assert!(matches!(lab.ask(&add(&["tap1", "tap99"], None)), Err(Denied::Nonsense(_))));
    assert!(matches!(lab.ask(&add(&["tap1"], Some(0))), Err(Denied::Rules(_))));
    let Change::Quarantine(mut request) = add(&["tap1"], None) else { unreachable!() };
    request.targets[0].mac = Some(Mac([0xff; 6]));
    let broadcast = Change::Quarantine(request);
    assert!(matches!(lab.ask(&broadcast), Err(Denied::Nonsense(_))));
    assert_eq!((lab.covered().len(), lab.orders().len()), (0, 0));
}

#[test]
fn on_hold_nobody_new_is_muted_and_then_they_are() {
    let mut lab = Lab::new(10, "", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.ask(&hold(true)).unwrap();
    let picture = lab.run(20, &sends);
    assert_eq!((lab.covered().len(), picture.sanctioned.states[&Subject::Port(2)]), (0, State::HeldBack));
    assert!(picture.sanctioned.warnings.iter().any(|warning| warning.contains("on hold (by root: test)")));
    lab.ask(&hold(false)).unwrap();
    lab.tick(&sends);
    assert_eq!(lab.covered(), ["port tap2"]);
}

#[test]
fn whom_a_person_lets_out_is_left_alone_for_a_while() {
    let mut lab = Lab::new(10, "[quarantine]\nfirst_s = 30\n", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.run(12, &sends);
    assert_eq!(lab.covered(), ["port tap2"]);
    lab.ask(&release("tap2")).unwrap();
    let picture = lab.run(29, &sends);
    assert_eq!((lab.covered().len(), picture.sanctioned.states[&Subject::Port(2)]), (0, State::HeldBack));
    assert!(lab.explain("tap2", None).held_back.unwrap().contains("was let out by a person"));
    lab.run(3, &sends);
    assert_eq!(lab.covered(), ["port tap2"]);
}

#[test]
fn who_comes_under_protection_is_let_out() {
    let mut lab = Lab::new(10, "", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.run(12, &sends);
    assert_eq!(lab.covered(), ["port tap2"]);
    let (inventory, _) = Inventory::from_csv(b"server_id,interface,protected\nbastion,tap2,true\n").unwrap();
    lab.sanctioner.context.machines.set(Known { inventory: Arc::new(inventory), warnings: Vec::new() });
    lab.tick(&sends);
    assert_eq!(lab.covered().len(), 0);
}

#[test]
fn a_machine_s_ports_get_no_more_than_their_own_classes_say() {
    let toml = "[[port]]\ninterface = 'tap2'\nclass = 'hard'\n[[port]]\ninterface = 'tap4'\nclass = 'off'\n\
                [class.off]\nrate_pps = 50\nburst = 250\nquarantine = 'off'\n\
                [class.hard]\nrate_pps = 50\nburst = 250\nquarantine = 'isolate'\n";
    let mut lab = Lab::new(10, toml, "server_id,interface\nem-1,tap2\nem-1,tap3\nem-1,tap4\n");
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    let picture = lab.run(12, &sends);
    assert_eq!(lab.covered(), ["port tap2", "port tap3"]);
    assert_eq!(picture.sanctioned.quarantines[0].action, crate::governor::Sanction::Mute);
}

#[test]
fn while_the_host_is_not_known_nobody_is_muted() {
    let mut lab = Lab::new(10, "", &owned(10));
    lab.facts.send_replace(Arc::default());
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    let picture = lab.run(20, &sends);
    assert_eq!(lab.covered().len(), 0);
    assert!(picture.sanctioned.warnings[0].contains("are not known"), "{:?}", picture.sanctioned.warnings);
}

#[test]
fn clients_of_many_ports_are_as_many_ports_for_the_cap() {
    let mut lab = Lab::new(70, "[quarantine]\nnew_per_window = 100\n", NOBODY);
    let sends: Vec<Sends> = (1..=70).map(|port| if port <= 30 { flood(port) } else { calm(port) }).collect();
    lab.run(12, &sends);
    assert_eq!(lab.covered().len(), 7);
    assert!(lab.covered().iter().all(|who| who.starts_with("client ")));
}

#[test]
fn a_port_that_is_blamed_for_one_client_is_as_quiet_as_that() {
    let mut lab = Lab::new(10, "[quarantine]\nfirst_s = 30\nquiet_s = 10\n", &owned(10));
    // Twenty times a client's limit, and less than the port's.
    let slow = Sends { pps: 40, ..flood(2) };
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { slow } else { calm(port) }).collect();
    lab.run(100, &sends);
    assert_eq!((lab.covered(), lab.count(EventKind::QuarantineBegan)), (vec!["port tap2".to_owned()], 1));
    assert_eq!(lab.count(EventKind::QuarantineEnded), 0);
}

#[test]
fn whoever_floods_does_not_get_out_by_calling_itself_a_server() {
    let mut lab = Lab::new(10, "", NOBODY);
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.run(5, &sends);
    lab.sanctioner.note_server(flood(2).key());
    lab.sanctioner.note_server(calm(3).key());
    lab.run(20, &sends);
    assert_eq!(lab.covered(), ["client 02:00:00:00:00:09 on port tap2"]);
    let Change::Quarantine(mut request) = add(&["tap3"], None) else { unreachable!() };
    request.targets[0].mac = Some(calm(3).mac());
    let refused = lab.ask(&Change::Quarantine(request)).unwrap_err();
    assert!(refused.to_string().contains("answers as a DHCP server"), "{refused}");
}
