//! What loading takes: the verifier's work, time, instructions, and the memory of the maps.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use dhcp_guard::dataplane::{DataPlane, Policy, PortSpec, Spec};
use dhcp_guard_common::layout::MAX_PORTS;

use super::spread::Spread;
use crate::guard_run;

/// Verifier and memory.
#[derive(Clone, Debug)]
pub struct Footprint {
    /// Instructions the verifier looked at; it gives up at 1,000,000.
    pub verified_instructions: Option<u32>,
    /// The program in bytes, after verification.
    pub translated_bytes: Option<u32>,
    /// From nothing to a program with filled maps, in milliseconds.
    pub load_ms: Spread,
    /// Maps, with the default capacities and with the largest host's.
    pub memory: [Memory; 2],
}

/// The maps for one choice of capacities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Stable name.
    pub name: &'static str,
    /// Room for ports.
    pub ports: u32,
    /// Room for known clients.
    pub known_clients: u32,
    /// Room for strangers.
    pub strangers: u32,
    /// Maps by name, with the bytes that the kernel charges for them, the largest first.
    pub maps: Vec<(String, u64)>,
}

impl Memory {
    /// All maps together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.maps.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Measures it, loading the program `loads` times.
///
/// # Errors
/// The kernel's.
pub fn measure(loads: usize) -> Result<Footprint> {
    let port = guard_run::port(0, 0);
    // The agent's defaults, and the host of the design's largest budgets.
    let default = spec(port, 1024, 16_384, 65_536);
    let large = spec(port, MAX_PORTS, 65_536, 65_536);
    let mut load_ms = Vec::new();
    for _ in 0..loads {
        let start = Instant::now();
        DataPlane::load(&default)?;
        load_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let mut plane = DataPlane::load(&default)?;
    let info = plane.program()?.info()?;
    Ok(Footprint {
        verified_instructions: info.verified_instruction_count(),
        translated_bytes: info.size_translated(),
        load_ms: Spread::of(&load_ms)?,
        memory: [memory("default", &default, &mut plane)?, memory("large", &large, &mut DataPlane::load(&large)?)?],
    })
}

fn spec(port: PortSpec, port_capacity: u32, known_capacity: u32, stranger_capacity: u32) -> Spec {
    let policy = Policy { ports: vec![port], ..Policy::default() };
    Spec { policy, port_capacity, known_capacity, stranger_capacity, ..Spec::default() }
}

fn memory(name: &'static str, spec: &Spec, plane: &mut DataPlane) -> Result<Memory> {
    let ids = plane.program()?.info()?.map_ids()?.unwrap_or_default();
    let mut maps = ids.into_iter().map(map_memory).collect::<Result<Vec<_>>>()?;
    maps.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let Spec { port_capacity, known_capacity, stranger_capacity, .. } = *spec;
    Ok(Memory { name, ports: port_capacity, known_clients: known_capacity, strangers: stranger_capacity, maps })
}

/// What the kernel says of a map in /proc/self/fdinfo.
fn map_memory(id: u32) -> Result<(String, u64)> {
    let info = MapInfo::from_id(id)?;
    let fd = info.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let bytes = memlock(&text).with_context(|| format!("no memlock in {path}"))?;
    Ok((info.name_as_str().unwrap_or("unknown").to_owned(), bytes))
}

fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:")).and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memlock_of_fdinfo() {
        assert_eq!(memlock("pos:\t0\nmap_type:\t1\nmemlock:\t81920\nmap_id:\t7\n"), Some(81_920));
        assert_eq!(memlock("pos:\t0\n"), None);
    }
}
