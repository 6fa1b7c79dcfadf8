//! The figures as one JSON document with stable names that say their unit.

use serde_json::{Value, json};

use super::super::{
    Figures,
    footprint::{Footprint, Memory},
    line_rate::{Comparison, FloodFigure},
    machine::Machine,
    per_frame::FrameFigure,
    service::{GroupFigure, Served, ServiceFigure},
    spread::Spread,
};
use crate::control::Verdict;

/// Everything, for programs.
#[must_use]
pub fn json(figures: &Figures) -> Value {
    let Machine { architecture, kernel, cpu, cpus, virtual_machine, jit } = &figures.machine;
    let effort = figures.effort;
    json!({
        "machine": {
            "architecture": architecture, "kernel": kernel, "cpu": cpu, "cpus": cpus,
            "virtual_machine": virtual_machine, "bpf_jit": jit,
        },
        "effort": {
            "frame_loads": effort.frame_loads, "frame_pairs": effort.frame_pairs, "frame_runs": effort.frame_runs,
            "flood_rounds": effort.flood_rounds,
            "flood_time_ms": effort.flood_time.as_millis() as u64, "service_machines": effort.service_machines,
            "service_patience_ms": effort.service_patience.as_millis() as u64, "loads": effort.loads,
        },
        "frames": figures.frames.iter().map(frame_json).collect::<Vec<_>>(),
        "floods": figures.floods.iter().map(flood_json).collect::<Vec<_>>(),
        "service": figures.service.iter().map(service_json).collect::<Vec<_>>(),
        "footprint": footprint_json(&figures.footprint),
        "over_budget": figures.over_budget(),
    })
}

fn frame_json(figure: &FrameFigure) -> Value {
    let verdict = match figure.verdict {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    };
    json!({
        "name": figure.name, "verdict": verdict,
        "control_ns": spread_json(&figure.control_ns), "over_control_ns": spread_json(&figure.over_control_ns),
        "pairs_disturbed": figure.pairs_disturbed,
        "budget_ns": figure.budget_ns, "over_budget": figure.is_over_budget(),
    })
}

fn flood_json(figure: &FloodFigure) -> Value {
    let other = |other: &Comparison| {
        json!({
            "name": other.name, "pps": spread_json(&other.pps), "times": spread_json(&other.times),
            "budget_times": other.budget_times, "over_budget": other.is_over_budget(),
        })
    };
    json!({
        "name": figure.name, "control_pps": spread_json(&figure.control_pps),
        "guard_pps": spread_json(&figure.guard_pps), "ratio": spread_json(&figure.ratio),
        "budget_ratio": figure.budget_ratio, "over_budget": figure.is_over_budget(),
        "against": figure.others.iter().map(other).collect::<Vec<_>>(),
        "rounds_repeated": figure.rounds_repeated, "rounds_disturbed": figure.rounds_disturbed,
    })
}

fn service_json(figure: &ServiceFigure) -> Value {
    let served = |served: &Served| {
        json!({
            "asked": served.asked, "served": served.served, "latency_ms": served.latency_ms.as_ref().map(spread_json),
        })
    };
    let group = |group: &GroupFigure| {
        json!({
            "name": group.group.name(), "first_lease": served(&group.first_lease), "renewal": served(&group.renewal),
            "promised": group.promised, "over_budget": group.is_over_budget(),
        })
    };
    json!({
        "name": figure.name, "guarded": figure.guarded, "flood_pps": figure.flood_pps,
        "lost_before_guard_packets": figure.lost_before_guard, "over_budget": figure.is_over_budget(),
        "groups": figure.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

fn footprint_json(footprint: &Footprint) -> Value {
    let memory = |memory: &Memory| {
        let maps = memory.maps.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes }));
        json!({
            "name": memory.name, "ports": memory.ports, "known_clients": memory.known_clients,
            "strangers": memory.strangers, "total_bytes": memory.total_bytes(), "maps": maps.collect::<Vec<_>>(),
        })
    };
    json!({
        "verified_instructions": footprint.verified_instructions, "translated_bytes": footprint.translated_bytes,
        "load_ms": spread_json(&footprint.load_ms),
        "memory": footprint.memory.iter().map(memory).collect::<Vec<_>>(),
    })
}

fn spread_json(spread: &Spread) -> Value {
    let Spread { median, min, lower_quartile, upper_quartile, max } = *spread;
    json!({
        "median": median, "min": min, "lower_quartile": lower_quartile, "upper_quartile": upper_quartile, "max": max,
    })
}
