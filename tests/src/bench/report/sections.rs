//! The sections of the table: frames, floods, loading.

use super::{
    super::{
        footprint::{Footprint, Memory},
        line_rate::{Comparison, FloodFigure},
        per_frame::FrameFigure,
        service::{GroupFigure, Served, ServiceFigure},
    },
    table::{Row, judged, limit, mebibytes, row, spread},
};
use crate::control::Verdict;

pub(super) fn frame_rows(figures: &[FrameFigure]) -> Vec<Row> {
    let mut rows = vec![row(&["section", "branch", "control", "over control", "budget", "", "disturbed"])];
    for figure in figures {
        rows.push(vec![
            section(figure).into(),
            figure.text.into(),
            format!("{:.1}", figure.control_ns.median),
            spread(&figure.over_control_ns, 1),
            limit("≤", figure.budget_ns),
            judged(figure.budget_ns.map(|budget| figure.over_control_ns.median <= budget)).into(),
            figure.pairs_disturbed.to_string(),
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

pub(super) fn flood_rows(figures: &[FloodFigure]) -> Vec<Row> {
    let mut rows = vec![row(&["section", "flood", "control Mpps", "ratio", "budget", "", "repeated", "disturbed"])];
    for figure in figures {
        rows.push(vec![
            if figure.is_noise() { "-" } else { "flood" }.into(),
            figure.text.into(),
            megapackets(figure.control_pps.median),
            spread(&figure.ratio, 2),
            limit("≥", figure.budget_ratio),
            judged(figure.budget_ratio.map(|budget| figure.ratio.median >= budget)).into(),
            figure.rounds_repeated.to_string(),
            figure.rounds_disturbed.to_string(),
        ]);
    }
    rows
}

/// Floods against what hosts have without the guard.
pub(super) fn comparison_rows(figures: &[FloodFigure]) -> Vec<Row> {
    let mut rows = vec![row(&["section", "flood", "against", "its Mpps", "guard's Mpps", "times", "budget", ""])];
    for figure in figures {
        rows.extend(figure.others.iter().map(|other| comparison_row(figure, other)));
    }
    rows
}

fn comparison_row(figure: &FloodFigure, other: &Comparison) -> Row {
    vec![
        "flood".into(),
        figure.text.into(),
        other.text.into(),
        megapackets(other.pps.median),
        megapackets(figure.guard_pps.median),
        spread(&other.times, 1),
        limit("≥", other.budget_times),
        judged(other.budget_times.map(|_| !other.is_over_budget())).into(),
    ]
}

fn megapackets(pps: f64) -> String {
    format!("{:.2}", pps / 1e6)
}

/// Who gets a lease while a flood runs.
pub(super) fn service_rows(figures: &[ServiceFigure]) -> Vec<Row> {
    let mut rows = vec![row(&[
        "section",
        "flood",
        "k/s",
        "guard",
        "who",
        "first lease",
        "ms",
        "renewal",
        "ms",
        "budget",
        "",
        "lost",
    ])];
    for figure in figures {
        rows.extend(figure.groups.iter().map(|group| service_row(figure, group)));
    }
    rows
}

fn service_row(figure: &ServiceFigure, group: &GroupFigure) -> Row {
    let served = |served: &Served| {
        let ms = served.latency_ms.as_ref().map_or_else(String::new, |ms| spread(ms, 1));
        [format!("{} of {}", served.served, served.asked), ms]
    };
    let mut cells = vec![
        "service".into(),
        figure.text.into(),
        format!("{:.0}", figure.flood_pps / 1e3),
        if figure.guarded { "on" } else { "off" }.into(),
        group.group.text().into(),
    ];
    cells.extend(served(&group.first_lease));
    cells.extend(served(&group.renewal));
    cells.push(if group.promised { "all" } else { "" }.into());
    cells.push(judged(group.promised.then(|| !group.is_over_budget())).into());
    cells.push(figure.lost_before_guard.to_string());
    cells
}

pub(super) fn footprint_rows(footprint: &Footprint) -> Vec<Row> {
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
