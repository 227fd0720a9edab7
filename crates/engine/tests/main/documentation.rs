//! `docs/metrics.md` lists what a node counts, as Prometheus prints it.

use std::fmt::Write;
use std::path::Path;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tidewire::Metrics;
use tidewire::metrics::{ClientLabels, NameLabel};

#[test]
fn the_page_of_metrics_has_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let heading = page.find("|---|").expect("the page has a table");
    let start = heading + page[heading..].find('\n').expect("the heading is a line") + 1;
    let end = page[start..].find("\n\n").map_or(page.len(), |end| start + end + 1);
    let rows = rows();
    assert_eq!(&page[start..end], rows, "the rows of docs/metrics.md should be these:\n{rows}");
}

/// One row for each metric: its name, its kind, its labels and its help.
fn rows() -> String {
    let mut printed = String::new();
    encode(&mut printed, &registry()).expect("writing to a string");
    let mut rows = String::new();
    let (mut help, mut kind) = ("", "");
    for line in printed.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ').map_or("", |(_, help)| help.trim_end_matches('.'));
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            kind = text.split_once(' ').map_or("", |(_, kind)| kind);
        } else if !line.starts_with('#') {
            let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            writeln!(rows, "| `{name}` | {kind} | {} | {help} |", label_names(labels))
                .expect("writing to a string");
        }
    }
    rows
}

fn label_names(labels: &str) -> String {
    let names = labels.split(',').filter_map(|label| label.split_once('='));
    names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Families print nothing before they have a member.
fn registry() -> Registry {
    let metrics = Metrics::default();
    let client = ClientLabels { dialect: "native", transport: "websocket" };
    metrics.connections.get_or_create(&client).inc();
    metrics.connections_opened.get_or_create(&client).inc();
    for family in [&metrics.closes, &metrics.refusals, &metrics.over_budget, &metrics.gaps] {
        family.get_or_create(&NameLabel { name: "x" }).inc();
    }
    let mut registry = Registry::with_prefix("tidewire");
    metrics.register(&mut registry);
    registry
}
