//! What a run found: a line of JSON, and a row of a table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::latency::Summary;

/// One run of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    /// Which server.
    pub(crate) system: String,
    /// How it was published.
    pub(crate) way: String,
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) subscribers: u64,
    pub(crate) topics: u64,
    pub(crate) payload_bytes: u64,

    /// Seconds that were measured; what follows is about these.
    pub(crate) seconds: f64,
    pub(crate) published: u64,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    /// From just before a publication was handed to its socket to when a subscriber's bytes were
    /// read, in milliseconds. In a storm: from a client's connect to its subscription.
    pub(crate) latency: Option<Summary>,
    /// From the same moment to the answer to the publisher.
    pub(crate) answer: Option<Summary>,
    /// From the answer to a statement, so from its commit, to when a subscriber's bytes were read.
    #[serde(default)]
    pub(crate) over_commit: Option<Summary>,
    /// How late publications were sent, where a rate was asked for.
    pub(crate) lateness: Option<Summary>,
    /// The server's processor time: seconds for a million deliveries, which is microseconds each.
    pub(crate) server_cpu_per_million: Option<f64>,
    /// How much of it was in the program; the rest was in the kernel.
    pub(crate) server_user_share: Option<f64>,
    /// Cores that the server kept busy.
    pub(crate) server_cores: Option<f64>,
    /// This program's own processor time for a delivery, in microseconds.
    pub(crate) own_cpu_per_delivery: Option<f64>,
    /// How often this program slept for a delivery; the server is charged for waking it.
    #[serde(default)]
    pub(crate) own_sleeps_per_delivery: Option<f64>,

    /// From the first message that everybody was sure to get to the end of the run.
    pub(crate) delivered_fraction: Option<f64>,
    pub(crate) out_of_order: u64,
    pub(crate) duplicates: u64,
    pub(crate) misdelivered: u64,
    /// Subscribers that saw publications of several lanes in another order than most.
    pub(crate) disagreeing: u64,
    pub(crate) gaps: u64,
    pub(crate) refused: u64,
    pub(crate) disconnects: u64,

    pub(crate) connections_per_second: Option<f64>,
    /// The server's processor time for a connection, microseconds: handshake and subscribing.
    pub(crate) cpu_per_connection: Option<f64>,
    /// How often a thread of the server slept for a connection: what it costs hangs on that.
    #[serde(default)]
    pub(crate) sleeps_per_connection: Option<f64>,
    /// Resident KiB of the server before anybody came.
    pub(crate) resident_before: Option<f64>,
    /// Resident KiB that each connection added: connected, subscribed, and at most under load.
    pub(crate) kib_connected: Option<f64>,
    pub(crate) kib_subscribed: Option<f64>,
    pub(crate) kib_loaded: Option<f64>,

    /// What the same cost, and how many came through in a second, where something else was measured
    /// in the same run to compare with.
    pub(crate) beside_cpu_per_million: Option<f64>,
    pub(crate) beside_per_second: Option<f64>,

    /// What else is to be known.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// Whether nothing was lost, repeated or put in another order.
    pub(crate) fn is_clean(&self) -> bool {
        self.delivered_fraction.is_none_or(|fraction| fraction == 1.0)
            && self.out_of_order + self.duplicates + self.misdelivered + self.disagreeing == 0
            && self.refused + self.disconnects + self.gaps == 0
    }
}

/// A column: its title, and how a report fills it.
type Column = (&'static str, fn(&Report) -> String);

const COLUMNS: &[Column] = &[
    ("scenario", |report| report.scenario.clone()),
    ("system", |report| report.system.clone()),
    ("way", |report| report.way.clone()),
    ("subscribers", |report| report.subscribers.to_string()),
    ("deliveries/s", |report| number(Some(report.deliveries_per_second), 0)),
    ("CPU-s/M", |report| number(report.server_cpu_per_million, 2)),
    ("user", |report| number(report.server_user_share.map(|share| share * 100.0), 0) + "%"),
    ("p50", |report| number(report.latency.map(|latency| latency.p50), 2)),
    ("p99", |report| number(report.latency.map(|latency| latency.p99), 2)),
    ("p99.9", |report| number(report.latency.map(|latency| latency.p999), 2)),
    ("p50 over commit", |report| number(report.over_commit.map(|over| over.p50), 2)),
    ("p99 over commit", |report| number(report.over_commit.map(|over| over.p99), 2)),
    ("delivered", |report| number(report.delivered_fraction, 5)),
    ("clean", |report| if report.is_clean() { "yes" } else { "NO" }.to_owned()),
    ("conn/s", |report| number(report.connections_per_second, 0)),
    ("µs/conn", |report| number(report.cpu_per_connection, 1)),
    ("sleeps/conn", |report| number(report.sleeps_per_connection, 2)),
    ("KiB idle", |report| number(report.kib_connected, 2)),
    ("KiB subscribed", |report| number(report.kib_subscribed, 2)),
    ("KiB loaded", |report| number(report.kib_loaded, 2)),
    ("beside", |report| number(report.beside_cpu_per_million, 2)),
    ("beside/s", |report| number(report.beside_per_second, 0)),
    ("own µs", |report| number(report.own_cpu_per_delivery, 2)),
];

/// The reports as a table for a terminal, with notes below.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut rows = vec![COLUMNS.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    rows.extend(
        reports.iter().map(|report| COLUMNS.iter().map(|(_, fill)| fill(report)).collect()),
    );
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:>width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for report in reports {
        for note in &report.notes {
            let _ = writeln!(text, "{} {}: {note}", report.scenario, report.system);
        }
    }
    text
}

/// A number with so many decimals, or a dash.
pub(crate) fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_report_and_its_notes() {
        let report = Report {
            scenario: "paced".to_owned(),
            server_cpu_per_million: Some(6.543),
            notes: vec!["a note".to_owned()],
            ..Report::default()
        };
        let text = table(&[report.clone(), report]);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("6.54"), "{text}");
    }

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let report = Report {
            latency: Some(Summary { p50: 1.5, ..Summary::default() }),
            delivered_fraction: Some(1.0),
            ..Report::default()
        };
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        assert!(report.is_clean());
        assert!(!Report { gaps: 1, ..report }.is_clean());
    }
}
