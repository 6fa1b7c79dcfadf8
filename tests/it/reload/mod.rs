//! The configuration is read again, and interfaces come, go, are called otherwise and lose their guard, while the agent runs.
//!
//! Once for both hooks: what ends before any interface is looked at; limits, which are in maps that both have; and another
//! program in the guard's place, since only XDP has no more than one.
//!
//! * [`file`]: the file is read again. [`follow`]: interfaces come and go. [`taken_off`]: somebody takes the guard off.

mod file;
mod follow;
mod taken_off;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dhcp_guard::model::{Event, EventKind};
use libtest_mimic::Trial;
use tests::{
    agent::Agent,
    follower::Follower,
    harness::{Need, trial, trial_once},
    link,
    mac::Mac,
    netns::Netns,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip")];
/// What netlink tells is followed within this.
const FOLLOWED: Duration = Duration::from_secs(1);
/// The guard looks once a second whether its programs are where they were put.
const NOTICED: Duration = Duration::from_secs(2);
/// The agent reads its maps once a second, and tries again every five.
const SEEN: Duration = Duration::from_secs(8);
const FLOODER: Mac = Mac([2, 0xf1, 0, 0, 0, 1]);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("reload: limits change under a flood, and both are kept", Need::LAB, file::limits_under_flood),
        trial_once(
            "reload: a file that is wrong changes nothing, and all that is wrong is said",
            NEEDS,
            file::broken_file,
        ),
        trial_once("reload: a pipe in the file's place is refused, and stops nothing", NEEDS, file::pipe),
        trial(
            "reload: what is different is said first, and what has to wait for the next start",
            NEEDS,
            file::diff_and_dry_run,
        ),
        trial("reload: an interface that cannot be guarded leaves everything as it was", NEEDS, file::all_or_nothing),
        trial_once("reload: SIGHUP does the same", NEEDS, file::hangup),
        trial("reload: interfaces that match a pattern are followed wherever they go", NEEDS, follow::pattern),
        trial(
            "reload: an interface that is made anew is in quarantine again before its first packet",
            Need::LAB,
            follow::made_anew,
        ),
        trial("reload: whoever takes the guard off is noticed, and it is put back", Need::LAB, taken_off::taken_off),
        trial_once(
            "reload: whoever takes off what sees replies has not taken the guard off, and it is put back",
            NEEDS,
            taken_off::replies_taken_off,
        ),
        trial_once(
            "reload: another program in the guard's place stays there, and is told",
            NEEDS,
            taken_off::another_in_its_place,
        ),
        trial_once("reload: one thing is wrong with an interface, and told once", NEEDS, taken_off::one_warning),
        trial("reload: where nobody wants it back, it comes back with a reload", NEEDS, taken_off::not_put_back),
        trial_once(
            "reload: more interfaces than there is room for are guarded as far as there is",
            NEEDS,
            follow::too_many,
        ),
        trial_once("reload: hundreds of interfaces at once are guarded some at a time", NEEDS, follow::hundreds),
        trial_once("reload: what the kernel told while nobody listened is asked for", NEEDS, follow::overrun),
        trial("reload: an interface with the index of one that is gone is another one", NEEDS, follow::same_index),
        trial_once(
            "reload: a table full of known clients leaves no interface unguarded, and the allowlist holds",
            NEEDS,
            follow::full_of_known,
        ),
        trial(
            "reload: what refuses at the start and matches a pattern is tried again, also where nobody puts anything back",
            NEEDS,
            follow::refused_at_start,
        ),
        trial("reload: many interfaces that come and go at once leave the right ones guarded", NEEDS, follow::many),
    ]
}

/// A host without any interface but the loopback.
fn host() -> Result<Netns> {
    Netns::new("host")
}

/// A link that is up, both ends here, as on a host that is set up for XDP.
fn add(host: &Netns, name: &str) -> Result<()> {
    link::add(host, name, &format!("p-{name}"))
}

fn write(agent: &Agent, config: &str) -> Result<()> {
    agent.launch().folder().write("dhcp-guard.toml", config).map(drop)
}

fn about(kind: EventKind, interface: &str) -> impl Fn(&Event) -> bool {
    move |event| event.kind == kind && event.interface.as_deref() == Some(interface)
}

/// Waits for an event about an interface, and forgets all that came until then.
fn next(follower: &mut Follower, deadline: Duration, kind: EventKind, interface: &str) -> Result<Event> {
    let start = Instant::now();
    let found = follower.wait_for(deadline, about(kind, interface));
    let (at, event) = found.with_context(|| format!("waiting for {kind:?} of {interface}"))?;
    println!("{:?} after {:?}: {}", event.kind, at.saturating_duration_since(start), event.message);
    follower.forget()?;
    Ok(event)
}
