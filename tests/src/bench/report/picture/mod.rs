//! The figures as a picture (SVG): frames with a budget, floods, machines under floods; the rest is in the table.

mod canvas;

use self::canvas::{Bar, Canvas, Cell, Judgement};
use super::super::{
    Figures,
    line_rate::{Comparison, FloodFigure},
    machine::Machine,
    per_frame::FrameFigure,
    service::{Group, GroupFigure, ServiceFigure},
};

/// One picture, for people; it says on which machine and kernel.
#[must_use]
pub fn picture(figures: &Figures) -> String {
    let mut canvas = Canvas::new();
    canvas.title("What dhcp-guard costs", &subtitles(&figures.machine));
    let frames: Vec<_> = figures.frames.iter().filter_map(frame_bar).collect();
    if !frames.is_empty() {
        canvas.bars("One frame: ns of CPU time more than in an empty XDP program", &frames);
    }
    let floods: Vec<_> = figures.floods.iter().filter(|figure| !figure.is_noise()).flat_map(flood_bars).collect();
    if !floods.is_empty() {
        canvas.bars("A flood over a veth: dropped per second, as a share of what an empty XDP_DROP drops", &floods);
    }
    if !figures.service.is_empty() {
        let head: Vec<_> = Group::ALL.iter().map(|group| group.text()).collect();
        let rows: Vec<_> = figures.service.iter().map(service_cells).collect();
        canvas.matrix("Machines served while a flood runs: new leases and renewals", &head, &rows);
        canvas.note(&lost(&figures.service));
    }
    canvas.note(
        "Bars are medians, the thin line goes from the smallest to the largest measurement, the tick is the budget.",
    );
    canvas.finish()
}

/// What the lab lost, so that nobody takes it for what the guard did.
fn lost(figures: &[ServiceFigure]) -> String {
    let frames: u64 = figures.iter().filter(|figure| figure.guarded).map(|figure| figure.lost_before_guard).sum();
    format!(
        "Grey: nothing is promised. Frames lost in the full ring in front of the guard, in all rows with it: {frames}."
    )
}

fn subtitles(machine: &Machine) -> [String; 2] {
    let Machine { architecture, kernel, cpu, cpus, virtual_machine, .. } = machine;
    let kind = if *virtual_machine { "virtual machine" } else { "bare metal" };
    [
        format!("{cpu}, {cpus} CPUs, {architecture}, {kind}; Linux {kernel}"),
        "Guard and controls take turns on this machine; cargo xtask bench prints all figures.".into(),
    ]
}

fn frame_bar(figure: &FrameFigure) -> Option<Bar> {
    let budget = figure.budget_ns?;
    let judgement = Judgement::of(!figure.is_over_budget());
    Some(Bar {
        label: figure.text.into(),
        spread: figure.over_control_ns,
        budget: Some(budget),
        judgement: Some(judgement),
        text: format!("{:.1} ns, budget {budget}: {}", figure.over_control_ns.median, judgement.word()),
    })
}

/// The guard, and below it whom it is compared with.
fn flood_bars(figure: &FloodFigure) -> Vec<Bar> {
    let megapackets = figure.guard_pps.median / 1e6;
    let judgement = figure.budget_ratio.map(|budget| Judgement::of(figure.ratio.median >= budget));
    let budget = figure.budget_ratio.zip(judgement).map(|(budget, kept)| format!(", budget {budget}: {}", kept.word()));
    let guard = Bar {
        label: figure.text.into(),
        spread: figure.ratio,
        budget: figure.budget_ratio,
        judgement: Some(judgement.unwrap_or(Judgement::Kept)),
        text: format!("{:.2} ({megapackets:.1} M/s){}", figure.ratio.median, budget.unwrap_or_default()),
    };
    let others = figure.others.iter().map(|other| other_bar(figure, other));
    std::iter::once(guard).chain(others).collect()
}

fn other_bar(figure: &FloodFigure, other: &Comparison) -> Bar {
    let (times, share) = (other.times.median, other.pps.scaled(1.0 / figure.control_pps.median));
    let kept = other.budget_times.map(|budget| {
        let judgement = Judgement::of(!other.is_over_budget());
        format!(", budget {budget}: {}", judgement.word())
    });
    Bar {
        label: format!("    {}", other.text),
        spread: share,
        budget: None,
        judgement: None,
        text: format!("{:.2} (the guard {times:.1} ×{})", share.median, kept.unwrap_or_default()),
    }
}

fn service_cells(figure: &ServiceFigure) -> (String, Vec<Cell>) {
    let guard = if figure.guarded { "" } else { ", WITHOUT guard" };
    (format!("{}{guard}", figure.text), figure.groups.iter().map(group_cell).collect())
}

fn group_cell(group: &GroupFigure) -> Cell {
    let served = group.first_lease.served + group.renewal.served;
    let asked = group.first_lease.asked + group.renewal.asked;
    Cell {
        text: format!("{served} of {asked}"),
        share: served as f64 / asked as f64,
        judgement: group.promised.then(|| Judgement::of(!group.is_over_budget())),
    }
}
