//! A flood of DHCPDISCOVERs out of an interface you own.

use std::{process::ExitCode, str::FromStr, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tests::{
    flood::{Flood, Limits, Mode, Report, Traffic},
    mac::Mac,
    netns::Netns,
    packets::Tag,
    topology::Injection,
};

/// Sends a flood of DHCPDISCOVERs out of an interface. Only on networks that are yours.
#[derive(Debug, Parser)]
#[command(name = "flood")]
struct Arguments {
    /// Whose frames: `one` (a single MAC), `macs:N` (round robin over N), `random` (a new source MAC for every frame),
    /// `random-chaddr` (one source MAC, a new client hardware address for every frame), `random-all` (source MAC, client
    /// hardware address, transaction id, relay address and message type, all new and unrelated in every frame).
    #[arg(long, default_value = "one")]
    mode: ModeName,
    /// The source MAC, and the base for `macs:N`.
    #[arg(long, default_value = "02:00:00:f1:00:00")]
    mac: Mac,
    /// VLAN ids, the outer one first: one (802.1Q) or two (802.1ad, 802.1Q), as in `100,20`.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..4095))]
    vlan: Vec<u16>,
    /// New VLAN ids, 0 to 4095, in every frame, in place of those given.
    #[arg(long, requires = "vlan")]
    random_vlans: bool,
    /// How long to send, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Frames per second; as fast as possible if not given.
    #[arg(long)]
    rate: Option<u64>,
    /// Stop after this many frames.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    packets: u64,
    /// The interface to send on. There is no default: a flood must never leave by an interface nobody chose.
    #[arg(long)]
    interface: Option<String>,
    /// Send from the network namespace of this process instead of the current one.
    #[arg(long, value_name = "PID")]
    netns_pid: Option<u32>,
}

/// `--mode`.
#[derive(Clone, Copy, Debug)]
enum ModeName {
    One,
    Macs(u32),
    Random,
    RandomChaddr,
    RandomAll,
}

impl FromStr for ModeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is none of one, macs:N, random, random-chaddr, random-all");
        Ok(match text {
            "one" => Self::One,
            "random" => Self::Random,
            "random-chaddr" => Self::RandomChaddr,
            "random-all" => Self::RandomAll,
            _ => Self::Macs(text.strip_prefix("macs:").and_then(|count| count.parse().ok()).ok_or_else(unknown)?),
        })
    }
}

/// Where the random addresses begin: the same flood every time it is asked for.
const SEED: u64 = 0x6463_7067_7561_7264;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(report) => {
            print(&report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<Report> {
    let Some(interface) = arguments.interface else {
        bail!("which interface is the flood to leave by? Name one that is yours with --interface IF");
    };
    let netns = arguments.netns_pid.map_or_else(Netns::current, Netns::of_process)?;
    let mode = match arguments.mode {
        ModeName::One => Mode::One(arguments.mac),
        ModeName::Macs(count) => Mode::Macs { base: arguments.mac, count },
        ModeName::Random => Mode::Random { seed: SEED },
        ModeName::RandomChaddr => Mode::RandomChaddr { source: arguments.mac, seed: SEED },
        ModeName::RandomAll => Mode::RandomAll { seed: SEED },
    };
    let tags = match arguments.vlan[..] {
        [] => Vec::new(),
        [id] => vec![Tag::c(id)],
        [outer, inner] => vec![Tag::s(outer), Tag::c(inner)],
        _ => bail!("{} VLAN ids: a frame has two tags at most", arguments.vlan.len()),
    };
    let limits = Limits {
        max_packets: arguments.packets,
        max_time: Duration::from_secs(arguments.seconds),
        rate_pps: arguments.rate,
    };
    let from = Injection { netns, interface };
    let flood = Flood::start(&from, Traffic { mode, tags, random_vlans: arguments.random_vlans }, limits)
        .with_context(|| format!("cannot flood `{}`", from.interface))?;
    flood.wait()
}

fn print(report: &Report) {
    let lost = report.lost.map_or_else(String::new, |lost| format!(", {lost} of them lost on a full ring"));
    let (sent, seconds, rate) = (report.sent, report.elapsed.as_secs_f64(), report.rate_pps());
    println!("sent {sent} frames in {seconds:.3} s ({rate:.0} per second){lost}");
}
