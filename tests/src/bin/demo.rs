//! The main job in a minute: `cargo xtask demo`.
//!
//! The incident this product was made for, on a network inside this machine: one misconfigured machine floods the DHCP
//! server. First without the guard, then with it. Real dnsmasq, real dhclients, live frames; the server's side is
//! counted by nftables, not by us.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::{
    agent::Agent,
    cleanup::{self, Folder},
    client::{self, leases},
    flood::{Flood, Limits, Mode},
    harness::Need,
    limit::Limit,
    mac::Mac,
    topology::{Lab, Layout},
    trickle::Trickle,
    wait,
};

const CLIENTS: usize = 20;
const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 0x42]);
/// How long clients may try while the flood runs: they try three times (RFC 2131, section 4.1).
const PATIENCE: Duration = Duration::from_secs(10);
/// The flood goes on for at least this long.
const FLOOD_TIME: Duration = Duration::from_secs(6);
/// And no longer than this, whatever happens.
const MAX_TIME: Duration = Duration::from_secs(40);
/// What the guard starts with.
const LIMIT: Limit = Limit::CLIENT;

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("demo: takes no arguments; it floods a network inside this machine for some 20 seconds");
        return ExitCode::from(2);
    }
    match cleanup::on_signals().and_then(|()| demo()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What one half of the demo showed.
struct Half {
    /// How long the flood lasted.
    elapsed: Duration,
    /// Packets of the flood that reached the server.
    at_server: u64,
    /// Clients with a lease.
    served: usize,
}

/// The flood with its companion.
struct Running {
    flood: Flood,
    trickle: Trickle,
    start: Instant,
}

fn demo() -> Result<bool> {
    let missing: Vec<String> = Need::LAB.iter().filter_map(|need| need.missing()).collect();
    anyhow::ensure!(missing.is_empty(), "cannot build the lab: it {}", missing.join(", "));
    let story = Story { start: Instant::now() };
    story.tell("A network inside this machine: 20 bare-metal machines behind one uplink, a host, a DHCP server.");
    let without = without_guard(&story)?;
    println!();
    let with = with_guard(&story)?;
    println!();
    Ok(story.verdict(&without, &with))
}

fn without_guard(story: &Story) -> Result<Half> {
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    story.tell("WITHOUT the guard");
    baseline(story, &lab)?;
    let flood = flood(story, &lab)?;
    // Once it has answered so many, the server is where the incident's was when the first alert came.
    wait::until("answers of the server to the flood", PATIENCE, || Ok(lab.server.logged().offer > 5000))?;
    let served = leases(&lab.get_leases(0..CLIENTS, PATIENCE)?).len();
    story.tell(&format!("{served} of {CLIENTS} machines that ask for a lease during the flood get one"));
    end(story, &lab, flood, served)
}

fn with_guard(story: &Story) -> Result<Half> {
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    story.tell("WITH the guard: dhcp-guard run -i uplink0");
    let folder = Folder::new()?;
    let rows = format!("server_id,name,mac\nem-0042,rack 7 unit 3,{FLOODER}\n");
    let inventory = folder.write("inventory.csv", &rows)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), &format!("inventory = \"{}\"\n", inventory.display()))?;
    let mut clients = baseline(story, &lab)?;
    let flood_start = Instant::now();
    let flood = flood(story, &lab)?;
    wait::until("the flooder among the offenders", PATIENCE, || Ok(!agent.offenders()?.is_empty()))?;
    story.tell(&format!("named {:.1} s after its first packet; dhcp-guard offenders:", seconds(flood_start.elapsed())));
    story.quote(&agent.text(&["offenders"])?);
    let renewed = leases(&client::run_all(&mut clients, PATIENCE)?).len();
    story.tell(&format!("{renewed} of {CLIENTS} machines renew their leases during the flood"));
    wait::until("the flood's time", FLOOD_TIME, || Ok(flood_start.elapsed() >= FLOOD_TIME))?;
    let half = end(story, &lab, flood, renewed)?;
    // The agent reads the kernel's counters once a second; the last reading is the whole flood.
    let next = agent.json(&["status"])?["as_of"].clone();
    wait::until("the next reading", PATIENCE, || Ok(agent.json(&["status"])?["as_of"] != next))?;
    story.tell("dhcp-guard status:");
    story.quote(&agent.text(&["status"])?);
    Ok(half)
}

/// Every machine gets its lease in peace.
fn baseline(story: &Story, lab: &Lab) -> Result<Vec<client::Client>> {
    let mut clients = lab.clients(0..CLIENTS)?;
    let bound = leases(&client::run_all(&mut clients, PATIENCE)?);
    let slowest = bound.iter().map(|lease| lease.elapsed).max().unwrap_or_default();
    story.tell(&format!(
        "{} of {CLIENTS} real dhclients get a lease, the slowest in {:.2} s",
        bound.len(),
        seconds(slowest)
    ));
    Ok(clients)
}

fn flood(story: &Story, lab: &Lab) -> Result<Running> {
    story.tell(&format!("{FLOODER} starts to flood: DISCOVERs with ever new client hardware addresses"));
    let mode = Mode::RandomChaddr { source: FLOODER, seed: 1 };
    let start = Instant::now();
    let trickle = Trickle::start(&lab.injection(0), FLOODER, MAX_TIME)?;
    let flood = Flood::start(&lab.injection(0), mode, Limits::time(MAX_TIME))?;
    Ok(Running { flood, trickle, start })
}

fn end(story: &Story, lab: &Lab, running: Running, served: usize) -> Result<Half> {
    let sent = running.flood.stop()?.delivered() + running.trickle.stop();
    let elapsed = running.start.elapsed();
    let at_server = lab.server.counts().context("cannot count at the server")?.of(FLOODER);
    story.tell(&format!(
        "the flood ends: {} packets in {:.1} s ({}/s); at the server arrived {} of them ({}/s)",
        thousands(sent),
        seconds(elapsed),
        thousands((sent as f64 / seconds(elapsed)) as u64),
        thousands(at_server),
        thousands((at_server as f64 / seconds(elapsed)) as u64),
    ));
    Ok(Half { elapsed, at_server, served })
}

/// The narrator.
struct Story {
    start: Instant,
}

impl Story {
    fn tell(&self, sentence: &str) {
        println!("{:5.1} s  {sentence}", seconds(self.start.elapsed()));
    }

    fn quote(&self, text: &str) {
        text.lines().for_each(|line| println!("         | {line}"));
    }

    fn verdict(&self, without: &Half, with: &Half) -> bool {
        let allowed = LIMIT.allowed(with.elapsed);
        let harmed = without.served < CLIENTS;
        let held = with.at_server <= allowed;
        let served = with.served == CLIENTS;
        self.tell(&format!(
            "machines served during the flood: {} of {CLIENTS} without, {} of {CLIENTS} with the guard; packets of the \
             flood at the server: {} without, {} with (limit {} pps, burst {}: {allowed} allowed)",
            without.served,
            with.served,
            thousands(without.at_server),
            with.at_server,
            LIMIT.rate,
            LIMIT.burst,
        ));
        let passed = harmed && held && served;
        println!("verdict: {}", if passed { "PASS" } else { "FAIL" });
        passed
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    dhcp_guard::human::count(number)
}
