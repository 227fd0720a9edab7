//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::lane::Way;
use crate::system::System;

/// Measures what it costs to bring messages to many clients.
#[derive(Debug, Parser)]
#[command(name = "tidewire-bench", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure scenarios; a table on the way and at the end
    Run(Box<RunFlags>),
    /// Say which scenarios there are
    List,
    /// Print reports as tables in Markdown, with minimum, median and maximum
    Table(TableFlags),
    /// Draw latency and cost against the number of subscribers
    Plot(PlotFlags),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunFlags {
    /// Scenarios, all when none is named
    pub(crate) scenarios: Vec<String>,
    /// Seconds to measure each
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Rounds: each measures every scenario with every system once
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// Servers to start and measure
    #[arg(long, value_delimiter = ',', default_value = "tidewire")]
    pub(crate) system: Vec<System>,
    /// The program tidewire
    #[arg(long, value_name = "FILE", default_value = "target/release/tidewire")]
    pub(crate) server_binary: PathBuf,
    /// The peers' scripts and what npm installed for them
    #[arg(long, value_name = "FOLDER", default_value = "crates/bench/peers")]
    pub(crate) peers: PathBuf,
    /// A running server to measure instead
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The running server's process, for what it costs
    #[arg(long, requires = "url")]
    pub(crate) pid: Option<i32>,
    /// Speak by this template, a name or a .toml file, instead of the scenario's
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// Publish this way instead of the scenario's
    #[arg(long)]
    pub(crate) way: Option<Way>,
    /// So many subscribers instead of the scenario's; several are measured one after the other
    #[arg(long, value_delimiter = ',')]
    pub(crate) subscribers: Vec<usize>,
    /// Bytes of a payload instead of the scenario's
    #[arg(long)]
    pub(crate) payload: Option<usize>,
    /// So many publications a second instead of the scenario's load
    #[arg(long, conflicts_with = "outstanding")]
    pub(crate) rate: Option<f64>,
    /// So many publications outstanding instead of the scenario's load
    #[arg(long)]
    pub(crate) outstanding: Option<usize>,
    /// Handshakes under way at once: by default more than two cores need to be busy, and far fewer
    /// than a listening socket's queue takes
    #[arg(long, default_value_t = 128)]
    pub(crate) handshakes: usize,
    /// Seconds for the last messages to arrive before they count as lost
    #[arg(long, default_value_t = 15.0)]
    pub(crate) patience: f64,
    /// Add a line of JSON for each run to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TableFlags {
    /// Files of JSON lines
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Put the tables into this document, between its marks
    #[arg(long, value_name = "FILE", requires = "mark")]
    pub(crate) into: Option<PathBuf>,
    /// The name of the marks: <!-- NAME --> and <!-- /NAME -->
    #[arg(long, value_name = "NAME", default_value = "tables")]
    pub(crate) mark: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlotFlags {
    /// Files of JSON lines
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The scenario to draw
    #[arg(long, default_value = "paced")]
    pub(crate) scenario: String,
    /// The drawing
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}
