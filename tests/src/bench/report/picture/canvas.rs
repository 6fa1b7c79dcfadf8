//! Panels of bars and cells, one below the other.

use svg::{
    Document,
    node::element::{Group, Line, Rectangle, Text, Title},
};

use super::super::super::spread::Spread;

/// Of the picture, in pixels, as is everything here.
const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
/// Where bars and cells begin, and how far a bar can reach; its text stands right of that.
const LEFT: f64 = 330.0;
const REACH: f64 = 370.0;
const LINE: f64 = 22.0;
const BAR: f64 = 14.0;

const INK: &str = "#1b1f24";
const FAINT: &str = "#6a737d";
const KEPT: &str = "#2f81b7";
const BROKEN: &str = "#c8553d";
const OTHER: &str = "#b4bac1";

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Kept,
    Broken,
}

impl Judgement {
    pub(super) fn of(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Broken }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Broken => "missed",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Kept => KEPT,
            Self::Broken => BROKEN,
        }
    }
}

/// A bar.
pub(super) struct Bar {
    /// Left of it; spaces in front indent it.
    pub(super) label: String,
    /// Its length, and how far the measurements reach.
    pub(super) spread: Spread,
    /// Where the tick is.
    pub(super) budget: Option<f64>,
    /// Its colour; grey for what is only compared with.
    pub(super) judgement: Option<Judgement>,
    /// Right of it.
    pub(super) text: String,
}

/// A cell of a matrix.
pub(super) struct Cell {
    /// In it.
    pub(super) text: String,
    /// How much of it is filled, 0 to 1.
    pub(super) share: f64,
    /// Its colour; grey where nothing is promised.
    pub(super) judgement: Option<Judgement>,
}

/// A picture that grows downwards.
pub(super) struct Canvas {
    content: Group,
    y: f64,
}

impl Canvas {
    pub(super) fn new() -> Self {
        Self { content: Group::new(), y: MARGIN }
    }

    pub(super) fn title(&mut self, title: &str, below: &[String]) {
        self.y += 14.0;
        self.draw(words(MARGIN, self.y, title, 22.0, INK).set("font-weight", "bold"));
        for line in below {
            self.y += LINE;
            self.draw(words(MARGIN, self.y, line, 13.0, FAINT));
        }
    }

    /// Bars that share a scale.
    pub(super) fn bars(&mut self, heading: &str, bars: &[Bar]) {
        self.heading(heading);
        let largest = bars.iter().flat_map(|bar| [bar.spread.max, bar.budget.unwrap_or(0.0)]).fold(0.0, f64::max);
        let x = |value: f64| LEFT + value.max(0.0) * REACH / largest;
        for bar in bars {
            let (top, middle) = (self.y, self.y + BAR / 2.0);
            let colour = bar.judgement.map_or(OTHER, Judgement::colour);
            let label = bar.label.trim_start();
            let indent = 4.0 * (bar.label.len() - label.len()) as f64;
            self.draw(words(MARGIN + indent, top + 12.0, label, 13.0, if indent > 0.0 { FAINT } else { INK }));
            self.draw(block(LEFT, top, x(bar.spread.median) - LEFT, colour));
            self.draw(stroke((x(bar.spread.min), middle), (x(bar.spread.max), middle), 1.5, INK));
            if let Some(budget) = bar.budget {
                self.draw(stroke((x(budget), top - 4.0), (x(budget), top + BAR + 4.0), 2.5, INK));
            }
            self.draw(words(LEFT + REACH + 16.0, top + 12.0, &bar.text, 13.0, INK));
            self.y += LINE;
        }
    }

    /// Rows of cells under a head.
    pub(super) fn matrix(&mut self, heading: &str, head: &[&str], rows: &[(String, Vec<Cell>)]) {
        self.heading(heading);
        let pitch = (WIDTH - MARGIN - LEFT) / head.len() as f64;
        let left = |column: usize| LEFT + pitch * column as f64;
        for (column, text) in head.iter().enumerate() {
            self.draw(words(left(column), self.y + 8.0, text, 13.0, FAINT));
        }
        self.y += LINE;
        for (label, cells) in rows {
            let top = self.y;
            self.draw(words(MARGIN, top + 12.0, label, 13.0, INK));
            for (column, cell) in cells.iter().enumerate() {
                let (x, full) = (left(column), pitch - 76.0);
                self.draw(block(x, top, full, "#eceff1"));
                self.draw(block(x, top, full * cell.share, cell.judgement.map_or(OTHER, Judgement::colour)));
                self.draw(words(x + full + 8.0, top + 12.0, &cell.text, 13.0, INK));
            }
            self.y += LINE;
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        self.y += LINE - 4.0;
        self.draw(words(MARGIN, self.y, text, 12.0, FAINT));
    }

    /// The picture.
    pub(super) fn finish(self) -> String {
        let height = self.y + MARGIN;
        let paper = Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff");
        let document = Document::new()
            .set("viewBox", (0, 0, WIDTH, height))
            .set("width", WIDTH)
            .set("height", height)
            .set("font-family", "Helvetica, Arial, 'DejaVu Sans', sans-serif")
            .add(Title::new("What dhcp-guard costs"))
            .add(paper)
            .add(self.content);
        format!("{document}\n")
    }

    fn heading(&mut self, text: &str) {
        self.y += 2.0 * LINE;
        self.draw(words(MARGIN, self.y, text, 15.0, INK).set("font-weight", "bold"));
        self.y += 14.0;
    }

    fn draw(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        svg::Node::append(&mut self.content, node);
    }
}

fn words(x: f64, y: f64, text: &str, size: f64, colour: &str) -> Text {
    Text::new(text).set("x", x).set("y", y).set("font-size", size).set("fill", colour)
}

fn block(x: f64, y: f64, width: f64, colour: &str) -> Rectangle {
    Rectangle::new().set("x", x).set("y", y).set("width", width.max(0.0)).set("height", BAR).set("fill", colour)
}

fn stroke(from: (f64, f64), to: (f64, f64), width: f64, colour: &str) -> Line {
    let line = Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1);
    line.set("stroke", colour).set("stroke-width", width)
}
