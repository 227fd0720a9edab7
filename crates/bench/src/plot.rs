//! Latency and cost against the number of subscribers, as a drawing in SVG.

use std::fmt::Write as _;

use crate::compare::Spread;
use crate::report::Report;

/// One panel's drawing area, and the room around it for words.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const PANEL: f64 = LEFT + WIDTH + 30.0;

/// Colours that are told apart on light and dark ground, and by most eyes.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A line: its name, and whether it is dashed.
struct Line {
    name: String,
    colour: &'static str,
    is_dashed: bool,
    points: Vec<(f64, f64)>,
}

/// The drawing; two panels with a line for each system, through the medians of its runs.
pub(crate) fn svg(reports: &[Report]) -> String {
    let mut systems: Vec<_> = reports.iter().map(|report| report.system.as_str()).collect();
    systems.sort_unstable();
    systems.dedup();
    let mut latency = Vec::new();
    let mut cost = Vec::new();
    for (at, system) in systems.iter().enumerate() {
        let of: Vec<_> = reports.iter().filter(|report| report.system == *system).collect();
        let colour = COLOURS[at % COLOURS.len()];
        let line = |name: String, is_dashed, value: fn(&Report) -> Option<f64>| Line {
            name,
            colour,
            is_dashed,
            points: medians(&of, value),
        };
        latency.push(line(format!("{system} p50"), false, |one| Some(one.latency?.p50)));
        latency.push(line(format!("{system} p99"), true, |one| Some(one.latency?.p99)));
        cost.push(line((*system).to_owned(), false, |one| one.server_cpu_per_million));
    }
    let height = TOP + HEIGHT + 50.0 + 16.0 * latency.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#666\">\n",
        2.0 * PANEL
    );
    panel(&mut text, 0.0, "Latency, ms", &latency);
    panel(&mut text, PANEL, "Server CPU, s per million deliveries", &cost);
    text.push_str("</svg>\n");
    text
}

/// The median of a value at each number of subscribers.
fn medians(reports: &[&Report], value: fn(&Report) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut counts: Vec<_> = reports.iter().map(|report| report.subscribers).collect();
    counts.sort_unstable();
    counts.dedup();
    let at = |count: u64| {
        let of_it = reports.iter().filter(|report| report.subscribers == count);
        let spread = Spread::of(of_it.filter_map(|report| value(report)))?;
        Some((count as f64, spread.median))
    };
    counts.into_iter().filter_map(at).collect()
}

/// One panel, both axes in powers of ten.
fn panel(text: &mut String, left: f64, title: &str, lines: &[Line]) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (Some(xs), Some(ys)) = (
        Spread::of(points().map(|point| point.0)),
        Spread::of(points().map(|point| point.1.max(1e-6))),
    ) else {
        return;
    };
    let across = Axis::new(xs.min, xs.max, left + LEFT, WIDTH);
    let up = Axis::new(ys.min, ys.max, TOP + HEIGHT, -HEIGHT);
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" font-size=\"13\">{title}</text>",
        left + LEFT,
        TOP - 16.0
    );
    for (at, label) in across.marks() {
        let (top, bottom) = (TOP, TOP + HEIGHT);
        let _ = writeln!(text, "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#8884\"/>");
        let below = bottom + 16.0;
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>"
        );
    }
    for (at, label) in up.marks() {
        let (from, to) = (left + LEFT, left + LEFT + WIDTH);
        let _ = writeln!(text, "<path d=\"M{from} {at:.1}H{to}\" stroke=\"#8884\"/>");
        let (x, y) = (from - 6.0, at + 4.0);
        let _ = writeln!(text, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>");
    }
    let (x, y) = (left + LEFT + WIDTH / 2.0, TOP + HEIGHT + 34.0);
    let _ = writeln!(text, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">subscribers</text>");
    for (row, line) in lines.iter().enumerate() {
        draw(text, line, &across, &up);
        legend(text, line, left + LEFT, TOP + HEIGHT + 54.0 + 16.0 * row as f64);
    }
}

fn draw(text: &mut String, line: &Line, across: &Axis, up: &Axis) {
    let mut path = String::new();
    for (at, (x, y)) in line.points.iter().enumerate() {
        let verb = if at == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{verb}{:.1} {:.1}", across.place(*x), up.place(*y));
    }
    let Line { colour, .. } = line;
    let dash = if line.is_dashed { " stroke-dasharray=\"4 3\"" } else { "" };
    let _ = writeln!(
        text,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
    );
    for (x, y) in &line.points {
        let (x, y) = (across.place(*x), up.place(*y));
        let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

fn legend(text: &mut String, line: &Line, x: f64, y: f64) {
    let Line { name, colour, .. } = line;
    let dash = if line.is_dashed { " stroke-dasharray=\"4 3\"" } else { "" };
    let middle = y - 4.0;
    let _ = writeln!(
        text,
        "<path d=\"M{x} {middle}h24\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
         <text x=\"{}\" y=\"{y}\">{name}</text>",
        x + 30.0
    );
}

/// Powers of ten along a line.
struct Axis {
    low: i32,
    high: i32,
    start: f64,
    length: f64,
}

impl Axis {
    fn new(min: f64, max: f64, start: f64, length: f64) -> Self {
        let low = min.log10().floor() as i32;
        let high = (max.log10().ceil() as i32).max(low + 1);
        Self { low, high, start, length }
    }

    fn place(&self, value: f64) -> f64 {
        let share =
            (value.max(1e-6).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.start + share * self.length
    }

    fn marks(&self) -> impl Iterator<Item = (f64, String)> {
        (self.low..=self.high).map(|power| {
            let value = 10_f64.powi(power);
            (self.place(value), format!("{value}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Summary;

    #[test]
    fn places_on_an_axis_go_by_powers_of_ten() {
        let axis = Axis::new(20.0, 900.0, 100.0, 200.0);
        assert_eq!(axis.place(10.0), 100.0);
        assert_eq!(axis.place(100.0), 200.0);
        assert_eq!(axis.place(1_000.0), 300.0);
        let labels: Vec<_> = axis.marks().map(|(_, label)| label).collect();
        assert_eq!(labels, ["10", "100", "1000"]);
    }

    #[test]
    fn every_system_has_its_lines_and_nothing_is_drawn_of_nothing() {
        let report = |system: &str, subscribers| Report {
            system: system.to_owned(),
            subscribers,
            latency: Some(Summary { p50: 1.0, p99: 2.0, p999: 3.0, max: 4.0 }),
            server_cpu_per_million: Some(5.0),
            ..Report::default()
        };
        let text = svg(&[report("a", 10), report("a", 1_000), report("b", 10)]);
        for name in ["a p50", "a p99", "b p50", ">b<"] {
            assert!(text.contains(name), "{name}");
        }
        assert!(!text.contains("NaN"));
        assert!(!svg(&[]).contains("circle"));
    }
}
