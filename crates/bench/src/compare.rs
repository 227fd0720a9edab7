//! Several runs of several systems as tables: minimum, median, maximum, and how many times as much
//! as Tidewire.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::Report;
use crate::scenario;

/// The system that others are compared with.
const OURS: &str = "tidewire";

/// Connections from which on memory is divided by them.
const ENOUGH: u64 = 5_000;

/// Minimum, median and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` when there is nothing. The median of an even number is the mean of the middle two.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { min, median: f64::midpoint(low, high), max })
    }
}

/// What is measured, and where it stands in a report.
struct Measure {
    title: &'static str,
    decimals: usize,
    of: fn(&Report) -> Option<f64>,
}

const MEASURES: &[Measure] = &[
    Measure { title: "CPU-s/M", decimals: 2, of: |report| report.server_cpu_per_million },
    Measure { title: "beside", decimals: 2, of: |report| report.beside_cpu_per_million },
    Measure { title: "× beside", decimals: 2, of: over_beside },
    Measure { title: "deliveries/s", decimals: 0, of: rate },
    Measure { title: "beside/s", decimals: 0, of: |report| report.beside_per_second },
    Measure { title: "p50 ms", decimals: 2, of: |report| Some(report.latency?.p50) },
    Measure { title: "p99 ms", decimals: 2, of: |report| Some(report.latency?.p99) },
    Measure { title: "p50 over commit", decimals: 2, of: |report| Some(report.over_commit?.p50) },
    Measure { title: "p99 over commit", decimals: 2, of: |report| Some(report.over_commit?.p99) },
    Measure { title: "KiB/connection", decimals: 1, of: memory },
    Measure { title: "µs/connection", decimals: 0, of: |report| report.cpu_per_connection },
    Measure { title: "connections/s", decimals: 0, of: |report| report.connections_per_second },
];

/// How many times the cost of what was measured beside it.
fn over_beside(report: &Report) -> Option<f64> {
    Some(report.server_cpu_per_million? / report.beside_cpu_per_million?)
}

fn rate(report: &Report) -> Option<f64> {
    (report.deliveries > 0).then_some(report.deliveries_per_second)
}

/// With few connections it is the server's own ups and downs that would be divided by them.
fn memory(report: &Report) -> Option<f64> {
    let resident = report.kib_subscribed.or(report.kib_connected);
    resident.filter(|_| report.subscribers >= ENOUGH)
}

/// Tables in Markdown, one for each scenario.
pub(crate) fn markdown(reports: &[Report]) -> String {
    let mut text = String::new();
    for scenario in scenario::ALL {
        let of_it: Vec<_> = reports.iter().filter(|one| one.scenario == scenario.name).collect();
        if !of_it.is_empty() {
            let _ = write!(text, "### {}\n\n{}.\n\n", scenario.name, scenario.about);
            text.push_str(&one_table(&of_it));
            text.push('\n');
        }
    }
    text
}

fn one_table(reports: &[&Report]) -> String {
    let mut systems: Vec<&str> = Vec::new();
    for report in reports {
        if !systems.contains(&report.system.as_str()) {
            systems.push(&report.system);
        }
    }
    let of = |system: &str| -> Vec<&Report> {
        reports.iter().filter(|one| one.system == system).copied().collect()
    };
    let ours = of(OURS);
    let has = |measure: &&Measure| reports.iter().any(|report| (measure.of)(report).is_some());
    let measures: Vec<_> = MEASURES.iter().filter(has).collect();
    let compares = systems.len() > 1 && !ours.is_empty();
    let mut header = "| system | ".to_owned();
    let mut line = "|---|".to_owned();
    for (at, measure) in measures.iter().enumerate() {
        let _ = write!(header, "{} | ", measure.title);
        line.push_str("---:|");
        if at == 0 && compares {
            header.push_str("× Tidewire | ");
            line.push_str("---:|");
        }
    }
    let mut text = format!("{header}clean | runs |\n{line}---|---:|\n");
    for system in systems {
        let theirs = of(system);
        let _ = write!(text, "| {system} | ");
        for (at, measure) in measures.iter().enumerate() {
            let spread = Spread::of(theirs.iter().filter_map(|report| (measure.of)(report)));
            let _ = write!(text, "{} | ", cell(spread, measure.decimals));
            if at == 0 && compares {
                let _ = write!(text, "{} | ", cell(ratio(&theirs, &ours, measure), 2));
            }
        }
        let clean = theirs.iter().filter(|report| report.is_clean()).count();
        let clean = if clean == theirs.len() { "yes" } else { "**no**" };
        let _ = writeln!(text, "{clean} | {} |", theirs.len());
    }
    text.push_str(&notes(reports));
    text
}

/// What the last run of each system has to add.
fn notes(reports: &[&Report]) -> String {
    let mut last: BTreeMap<&str, &Report> = BTreeMap::new();
    for report in reports {
        last.insert(&report.system, report);
    }
    let mut text = String::new();
    for (system, report) in last {
        for note in &report.notes {
            let _ = write!(text, "\n- {system}: {note}");
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Each run over our run of the same round: neighbours on the machine disturb both alike.
fn ratio(theirs: &[&Report], ours: &[&Report], measure: &Measure) -> Option<Spread> {
    let rounds = theirs.iter().zip(ours);
    Spread::of(rounds.filter_map(|(a, b)| Some((measure.of)(a)? / (measure.of)(b)?)))
}

fn cell(spread: Option<Spread>, decimals: usize) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { min, median, max }) if min == max => format!("{median:.decimals$}"),
        Some(Spread { min, median, max }) => {
            format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
        }
    }
}

/// The document with what stands between `<!-- name -->` and `<!-- /name -->` replaced; `None`
/// when the marks are not there.
pub(crate) fn put_into(document: &str, name: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {name} -->\n");
    let end = format!("<!-- /{name} -->");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(system: &str, cost: f64) -> Report {
        Report {
            scenario: "paced".to_owned(),
            system: system.to_owned(),
            server_cpu_per_million: Some(cost),
            ..Report::default()
        }
    }

    #[test]
    fn a_spread_is_minimum_median_maximum() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 9.0]).unwrap().median, 3.0);
        let even = Spread::of([4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(even, Spread { min: 1.0, median: 3.0, max: 9.0 });
    }

    #[test]
    fn runs_are_compared_with_ours_of_the_same_round() {
        let runs = [("tidewire", 2.0), ("ws", 4.0), ("tidewire", 4.0), ("ws", 12.0)];
        let reports: Vec<_> = runs.iter().map(|(system, cost)| report(system, *cost)).collect();
        let text = markdown(&reports);
        assert!(text.contains("| tidewire | 3.00 (2.00–4.00) | 1.00 | yes | 2 |"), "{text}");
        assert!(text.contains("| ws | 8.00 (4.00–12.00) | 2.50 (2.00–3.00) | yes | 2 |"), "{text}");
    }

    #[test]
    fn the_last_run_of_each_has_its_notes_below() {
        let noted = |note: &str| Report { notes: vec![note.to_owned()], ..report("ws", 1.0) };
        let text = markdown(&[noted("early"), noted("late")]);
        assert!(text.ends_with("| 2 |\n\n- ws: late\n\n"), "{text}");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n";
        let expected = "a\n<!-- t -->\n\nnew\n\n<!-- /t -->\nb\n";
        assert_eq!(put_into(document, "t", "new\n").unwrap(), expected);
        assert_eq!(put_into(expected, "t", "new").unwrap(), expected);
        assert_eq!(put_into(document, "u", "new"), None);
    }
}
