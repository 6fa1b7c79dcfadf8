//! The figures as a table for people, as one JSON document and as a picture.

mod json;
mod picture;
mod sections;
mod table;

pub use self::{json::json, picture::picture};
use self::{
    sections::{comparison_rows, flood_rows, footprint_rows, frame_rows, service_rows},
    table::aligned,
};
use super::{Effort, Figures, machine::Machine, per_frame::SLICES};

/// Everything, for people.
#[must_use]
pub fn text(figures: &Figures) -> String {
    let mut text = heading(&figures.machine, figures.effort);
    let mut section = |title: &str, rows: &[table::Row]| {
        // A heading alone says nothing.
        if rows.len() > 1 {
            text.push_str(&format!("\n{title}\n{}", aligned(rows)));
        }
    };
    section(
        "One frame, in ns of CPU time over an empty program with the same verdict: median [min..max]",
        &frame_rows(&figures.frames),
    );
    section(
        "A flood over a veth, dropped per second against an empty XDP_DROP: median [min..max]",
        &flood_rows(&figures.floods),
    );
    section("The same against what a host has without the guard", &comparison_rows(&figures.floods));
    section(
        "Machines that get a lease while a flood runs; ms from their first message: median [min..max]; lost: frames that\n\
         the ring in front of the guard had no room for; whoever sent one asks again after some seconds",
        &service_rows(&figures.service),
    );
    section("Loading", &footprint_rows(&figures.footprint));
    text.push('\n');
    text.push_str(&conclusion(&figures.over_budget()));
    text
}

fn heading(machine: &Machine, effort: Effort) -> String {
    let Machine { architecture, kernel, cpu, cpus, virtual_machine, jit } = machine;
    let kind = if *virtual_machine { "virtual machine" } else { "bare metal" };
    let jit = if *jit { "on" } else { "OFF: the figures mean nothing" };
    let Effort { frame_loads, frame_pairs, frame_runs, flood_rounds, flood_time, .. } = effort;
    format!(
        "{cpu}, {cpus} CPUs, {architecture}, {kind}; Linux {kernel}; BPF JIT {jit}\n\
         guard and control in turns: {frame_loads} loads with {frame_pairs} repetitions of {frame_runs} runs for each \
         kind of frame, of each repetition the fastest of {SLICES} parts; {flood_rounds} rounds of {flood_time:?} for each flood\n"
    )
}

fn conclusion(over_budget: &[&str]) -> String {
    if over_budget.is_empty() {
        return "All promised budgets are kept.\n".into();
    }
    format!("Budgets missed: {}\n", over_budget.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        bench::{
            footprint::{Footprint, Memory},
            line_rate::{Comparison, FloodFigure},
            per_frame::FrameFigure,
            service::{Group, GroupFigure, Served, ServiceFigure},
            spread::Spread,
        },
        control::Verdict,
    };

    fn spread_of(samples: &[f64]) -> Spread {
        Spread::of(samples).unwrap()
    }

    fn frame(name: &'static str, over: &[f64], budget_ns: Option<f64>) -> FrameFigure {
        let (control_ns, over_control_ns) = (spread_of(&[25.0]), spread_of(over));
        FrameFigure {
            name,
            text: name,
            verdict: Verdict::Pass,
            control_ns,
            over_control_ns,
            budget_ns,
            pairs_disturbed: 0,
        }
    }

    fn group(group: Group, served: usize, promised: bool) -> GroupFigure {
        let all = Served { asked: 3, served: 3, latency_ms: Some(spread_of(&[1.0, 2.0, 4000.0])) };
        GroupFigure { group, first_lease: Served { served, ..all }, renewal: all, promised }
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
                frame("noise_pass", &[-0.04, 0.2, -0.3], None),
                frame("kept", &[1.0, 2.0, 3.0], Some(5.0)),
                frame("broken", &[6.0], Some(5.0)),
            ],
            floods: vec![FloodFigure {
                name: "flood_one_mac",
                text: "one MAC",
                control_pps: spread_of(&[4.5e6]),
                ratio: spread_of(&[0.9, 0.91, 0.89]),
                guard_pps: spread_of(&[4.05e6]),
                budget_ratio: Some(0.88),
                others: vec![Comparison {
                    name: "nftables",
                    text: "nftables",
                    pps: spread_of(&[1.35e6]),
                    times: spread_of(&[3.0]),
                    budget_times: Some(4.0),
                }],
                rounds_repeated: 2,
                rounds_disturbed: 1,
            }],
            service: vec![ServiceFigure {
                name: "service_random_10k",
                text: "random MACs",
                guarded: true,
                flood_pps: 10_000.0,
                lost_before_guard: 7,
                groups: vec![
                    group(Group::Strangers, 1, false),
                    group(Group::Known, 2, true),
                    group(Group::Elsewhere, 3, true),
                ],
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
        assert!(line("kept").ends_with("25.0     2.0 [1.0..3.0]   ≤ 5     ok             0"), "{text}");
        assert!(line("broken").ends_with("MISSES BUDGET  0"), "{text}");
        assert!(line("noise_pass").contains("0.0 [-0.3..0.2]"), "{text}");
        assert!(line("one MAC").ends_with("4.50          0.90 [0.89..0.91]  ≥ 0.88  ok  2         1"), "{text}");
        assert!(line("nftables").ends_with("1.35      4.05          3.0 [3.0..3.0]  ≥ 4     MISSES BUDGET"), "{text}");
        assert!(line("strangers on").contains("1 of 3       2.0 [1.0..4000.0]  3 of 3   2.0 [1.0..4000.0]"), "{text}");
        assert!(line("known clients on").ends_with("all     MISSES BUDGET  7"), "{text}");
        assert!(line("other ports").contains("all     ok "), "{text}");
        assert!(line("maps, default").contains("4.0 MiB (KNOWN 3.0, PORTS 1.0)"), "{text}");
        assert!(text.ends_with("Budgets missed: broken, flood_one_mac, service_random_10k\n"), "{text}");
    }

    #[test]
    fn json_has_the_figures_under_names_with_units() {
        let document = json(&figures());
        assert_eq!(document["frames"][1]["over_control_ns"]["median"], 2.0);
        assert_eq!(document["frames"][2]["over_budget"], true);
        assert_eq!(document["frames"][0]["budget_ns"], Value::Null);
        assert_eq!(document["floods"][0]["control_pps"]["max"], 4.5e6);
        assert_eq!(document["floods"][0]["against"][0]["times"]["median"], 3.0);
        assert_eq!(document["service"][0]["groups"][1]["first_lease"]["served"], 2);
        assert_eq!(document["service"][0]["groups"][1]["over_budget"], true);
        assert_eq!(document["footprint"]["memory"][0]["total_bytes"], 4 << 20);
        assert_eq!(document["over_budget"], serde_json::json!(["broken", "flood_one_mac", "service_random_10k"]));
    }

    #[test]
    fn the_picture_names_machine_and_kernel_and_shows_each_promise() {
        let picture = picture(&figures());
        for words in ["Some CPU, 2 CPUs", "Linux 6.12.0", "kept", "one MAC", "nftables", "3.0 ×", "5 of 6", "6.0 ns"] {
            assert!(picture.contains(words), "no `{words}` in {picture}");
        }
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
