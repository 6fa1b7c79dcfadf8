//! The figures as a table for people, and as one JSON document with stable names that say their unit.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    Effort, Figures,
    footprint::{Footprint, Memory},
    line_rate::FloodFigure,
    machine::Machine,
    per_frame::FrameFigure,
    spread::Spread,
};
use crate::control::Verdict;

/// Everything, for people.
#[must_use]
pub fn text(figures: &Figures) -> String {
    let mut text = heading(&figures.machine, figures.effort);
    text.push_str("\nOne frame, in ns of CPU time over an empty program with the same verdict: median [min..max]\n");
    text.push_str(&aligned(&frame_rows(&figures.frames)));
    text.push_str("\nA flood over a veth, dropped per second against an empty XDP_DROP: median [min..max]\n");
    text.push_str(&aligned(&flood_rows(&figures.floods)));
    text.push_str("\nLoading\n");
    text.push_str(&aligned(&footprint_rows(&figures.footprint)));
    text.push('\n');
    text.push_str(&conclusion(&figures.over_budget()));
    text
}

fn heading(machine: &Machine, effort: Effort) -> String {
    let Machine { architecture, kernel, cpu, cpus, virtual_machine, jit } = machine;
    let kind = if *virtual_machine { "virtual machine" } else { "bare metal" };
    let jit = if *jit { "on" } else { "OFF: the figures mean nothing" };
    let Effort { frame_loads, frame_pairs, frame_runs, flood_pairs, flood_time, .. } = effort;
    format!(
        "{cpu}, {cpus} CPUs, {architecture}, {kind}; Linux {kernel}; BPF JIT {jit}\n\
         guard and control in turns: {frame_loads} loads with {frame_pairs} pairs of {frame_runs} runs for each kind of \
         frame, {flood_pairs} pairs of {flood_time:?} for each flood\n"
    )
}

fn conclusion(over_budget: &[&str]) -> String {
    if over_budget.is_empty() {
        return "All promised budgets are kept.\n".into();
    }
    format!("Over budget: {}\n", over_budget.join(", "))
}

type Row = Vec<String>;

fn row(cells: &[&str]) -> Row {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn frame_rows(figures: &[FrameFigure]) -> Vec<Row> {
    let mut rows = vec![row(&["section", "branch", "control", "over control", "budget", "goal", ""])];
    for figure in figures {
        rows.push(vec![
            section(figure).into(),
            figure.text.into(),
            format!("{:.1}", figure.control_ns.median),
            spread(&figure.over_control_ns, 1),
            limit("≤", figure.budget_ns),
            limit("≤", figure.goal_ns),
            judged(
                figure.budget_ns.map(|budget| figure.over_control_ns.median <= budget),
                figure.goal_ns.map(|goal| figure.over_control_ns.median <= goal),
            )
            .into(),
        ]);
    }
    rows
}

fn section(figure: &FrameFigure) -> &'static str {
    match (figure.name.starts_with("noise"), figure.verdict) {
        (true, _) => "-",
        (false, Verdict::Pass) => "pass",
        (false, Verdict::Drop) => "drop",
    }
}

fn flood_rows(figures: &[FloodFigure]) -> Vec<Row> {
    let mut rows = vec![row(&["section", "flood", "control Mpps", "ratio", "goal", "", "repeated", "disturbed"])];
    for figure in figures {
        let noise = figure.name.starts_with("noise");
        rows.push(vec![
            if noise { "-" } else { "flood" }.into(),
            figure.text.into(),
            format!("{:.2}", figure.control_pps.median / 1e6),
            spread(&figure.ratio, 2),
            limit("≥", figure.goal_ratio),
            judged(None, figure.goal_ratio.map(|goal| figure.ratio.median >= goal)).into(),
            figure.pairs_repeated.to_string(),
            figure.pairs_disturbed.to_string(),
        ]);
    }
    rows
}

fn footprint_rows(footprint: &Footprint) -> Vec<Row> {
    let known = |number: Option<u32>| number.map_or_else(|| "unknown".into(), |number| number.to_string());
    let verified = format!("{} of 1000000", known(footprint.verified_instructions));
    let bytes = format!("{} bytes", known(footprint.translated_bytes));
    let mut rows = vec![
        vec!["instructions verified".into(), verified],
        vec!["program".into(), bytes],
        vec!["load time, ms".into(), spread(&footprint.load_ms, 1)],
    ];
    rows.extend(footprint.memory.iter().map(memory_row));
    rows
}

fn memory_row(memory: &Memory) -> Row {
    let Memory { name, ports, known_clients, strangers, .. } = memory;
    let largest: Vec<_> =
        memory.maps.iter().take(3).map(|(map, bytes)| format!("{map} {:.1}", mebibytes(*bytes))).collect();
    vec![
        format!("maps, {name}"),
        format!(
            "{:.1} MiB ({}) for {ports} ports, {known_clients} known clients, {strangers} strangers",
            mebibytes(memory.total_bytes()),
            largest.join(", ")
        ),
    ]
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn spread(spread: &Spread, digits: usize) -> String {
    // Adding 0 turns "-0.0" into "0.0".
    let number = |x: f64| {
        let scale = 10_f64.powi(i32::try_from(digits).unwrap_or(0));
        format!("{:.digits$}", (x * scale).round() / scale + 0.0)
    };
    format!("{} [{}..{}]", number(spread.median), number(spread.min), number(spread.max))
}

fn limit(sign: &str, value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{sign} {value}"))
}

/// In a word: first the promise, then the goal.
fn judged(within_budget: Option<bool>, within_goal: Option<bool>) -> &'static str {
    match (within_budget, within_goal) {
        (Some(false), _) => "OVER BUDGET",
        (_, Some(false)) => "misses goal",
        (Some(true), _) | (_, Some(true)) => "ok",
        (None, None) => "",
    }
}

/// Columns as wide as their widest cell.
fn aligned(rows: &[Row]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "  {cell:<width$}").expect("writing to a string cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

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
            "frame_loads": effort.frame_loads, "frame_pairs": effort.frame_pairs, "frame_runs": effort.frame_runs, "flood_pairs": effort.flood_pairs,
            "flood_time_ms": effort.flood_time.as_millis() as u64, "loads": effort.loads,
        },
        "frames": figures.frames.iter().map(frame_json).collect::<Vec<_>>(),
        "floods": figures.floods.iter().map(flood_json).collect::<Vec<_>>(),
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
        "budget_ns": figure.budget_ns, "goal_ns": figure.goal_ns, "over_budget": figure.is_over_budget(),
    })
}

fn flood_json(figure: &FloodFigure) -> Value {
    json!({
        "name": figure.name, "control_pps": spread_json(&figure.control_pps),
        "ratio": spread_json(&figure.ratio), "goal_ratio": figure.goal_ratio, "pairs_repeated": figure.pairs_repeated, "pairs_disturbed": figure.pairs_disturbed,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spread_of(samples: &[f64]) -> Spread {
        Spread::of(samples).unwrap()
    }

    fn frame(name: &'static str, over: &[f64], budget_ns: Option<f64>, goal_ns: Option<f64>) -> FrameFigure {
        let (control_ns, over_control_ns) = (spread_of(&[25.0]), spread_of(over));
        FrameFigure { name, text: name, verdict: Verdict::Pass, control_ns, over_control_ns, budget_ns, goal_ns }
    }

    fn figures() -> Figures {
        let memory = Memory {
            name: "default",
            ports: 1,
            known_clients: 2,
            strangers: 3,
            maps: vec![("KNOWN".into(), 3 << 20), ("PORTS".into(), 1 << 20)],
        };
        Figures {
            machine: Machine {
                architecture: "x86_64".into(),
                kernel: "6.12.0".into(),
                cpu: "Some CPU".into(),
                cpus: 2,
                virtual_machine: true,
                jit: true,
            },
            effort: Effort::QUICK,
            frames: vec![
                frame("noise_pass", &[-0.04, 0.2, -0.3], None, None),
                frame("kept", &[1.0, 2.0, 3.0], Some(5.0), Some(3.0)),
                frame("missed", &[4.0], Some(5.0), Some(3.0)),
                frame("broken", &[6.0], Some(5.0), Some(3.0)),
            ],
            floods: vec![FloodFigure {
                name: "flood_one_mac",
                text: "one MAC",
                control_pps: spread_of(&[4.5e6]),
                ratio: spread_of(&[0.9, 0.91, 0.89]),
                goal_ratio: Some(0.88),
                pairs_repeated: 2,
                pairs_disturbed: 1,
            }],
            footprint: Footprint {
                verified_instructions: Some(1234),
                translated_bytes: None,
                load_ms: spread_of(&[10.0]),
                memory: [memory.clone(), Memory { name: "large", ..memory }],
            },
        }
    }

    #[test]
    fn a_table_says_who_keeps_its_budget() {
        let text = text(&figures());
        let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap().to_owned();
        assert!(line("kept").ends_with("25.0     2.0 [1.0..3.0]   ≤ 5     ≤ 3   ok"), "{text}");
        assert!(line("missed").ends_with("misses goal"), "{text}");
        assert!(line("broken").ends_with("OVER BUDGET"), "{text}");
        assert!(line("noise_pass").ends_with("0.0 [-0.3..0.2]"), "{text}");
        assert!(line("one MAC").ends_with("4.50          0.90 [0.89..0.91]  ≥ 0.88  ok  2         1"), "{text}");
        assert!(line("maps, default").contains("4.0 MiB (KNOWN 3.0, PORTS 1.0)"), "{text}");
        assert!(text.ends_with("Over budget: broken\n"), "{text}");
    }

    #[test]
    fn columns_line_up() {
        let text = aligned(&[row(&["a", "bb"]), row(&["≤≤≤", "c"]), row(&["d", ""])]);
        assert_eq!(text, "  a    bb\n  ≤≤≤  c\n  d\n");
    }

    #[test]
    fn json_has_the_figures_under_names_with_units() {
        let json = json(&figures());
        assert_eq!(json["frames"][1]["over_control_ns"]["median"], 2.0);
        assert_eq!(json["frames"][3]["over_budget"], true);
        assert_eq!(json["frames"][0]["budget_ns"], Value::Null);
        assert_eq!(json["floods"][0]["control_pps"]["max"], 4.5e6);
        assert_eq!(json["footprint"]["memory"][0]["total_bytes"], 4 << 20);
        assert_eq!(json["over_budget"], json!(["broken"]));
    }
}
