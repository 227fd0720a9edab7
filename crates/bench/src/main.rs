//! The yardstick: what does it cost Tidewire, or a peer, to bring messages to many clients?
//!
//! One thread drives thousands of raw sockets; the server runs as a process of its own and is
//! charged by the kernel's books. `docs/performance.md` says how to use it and what was found.

mod client;
mod clock;
mod inbound;
mod lane;
mod latency;
mod process;
mod report;
mod run;
mod scenario;
mod server;
mod stamp;
mod swarm;
mod tally;
mod template;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use crate::lane::Way;
use crate::report::Report;
use crate::run::Run;
use crate::scenario::{Load, Scenario};
use crate::server::Server;

/// Measures what it costs to bring messages to many clients.
#[derive(Debug, Parser)]
#[command(name = "tidewire-bench", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure scenarios
    Run(RunFlags),
    /// Say which scenarios there are
    List,
}

#[derive(Debug, clap::Args)]
struct RunFlags {
    /// Scenarios, all when none is named
    scenarios: Vec<String>,
    /// Seconds to measure each
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Times to measure each, one scenario after the other
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// The program to start for each run
    #[arg(long, value_name = "FILE", default_value = "target/release/tidewire")]
    server_binary: PathBuf,
    /// A running server to measure instead
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The running server's process, for what it costs
    #[arg(long, requires = "url")]
    pid: Option<i32>,
    /// Speak by this template instead of the scenario's
    #[arg(long)]
    template: Option<String>,
    /// Publish this way instead of the scenario's
    #[arg(long)]
    way: Option<Way>,
    /// So many subscribers instead of the scenario's
    #[arg(long)]
    subscribers: Option<usize>,
    /// So many publications a second instead of the scenario's load
    #[arg(long, conflicts_with = "outstanding")]
    rate: Option<f64>,
    /// So many publications outstanding instead of the scenario's load
    #[arg(long)]
    outstanding: Option<usize>,
    /// Add a line of JSON for each run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewire-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Run(flags) => measure(&flags),
        Command::List => {
            for scenario in scenario::ALL {
                println!("{:20} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
    }
}

fn measure(flags: &RunFlags) -> anyhow::Result<()> {
    let scenarios = chosen(flags)?;
    let mut reports = Vec::new();
    let mut failed = 0;
    for _ in 0..flags.runs {
        for scenario in &scenarios {
            match once(flags, scenario) {
                Ok(report) => {
                    keep(flags.json.as_deref(), &report)?;
                    eprint!("{}", report::table(std::slice::from_ref(&report)));
                    reports.push(report);
                }
                Err(error) => {
                    eprintln!("{}: {error:#}", scenario.name);
                    failed += 1;
                }
            }
        }
    }
    print!("{}", report::table(&reports));
    if failed > 0 {
        bail!("{failed} runs failed");
    }
    Ok(())
}

fn chosen(flags: &RunFlags) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios = if flags.scenarios.is_empty() {
        scenario::ALL.to_vec()
    } else {
        flags.scenarios.iter().map(|name| scenario::named(name)).collect::<Result<_, _>>()?
    };
    for scenario in &mut scenarios {
        if let Some(subscribers) = flags.subscribers {
            scenario.topics = if scenario.topics > 1 { subscribers } else { 1 };
            scenario.subscribers = subscribers;
        }
        scenario.way = flags.way.unwrap_or(scenario.way);
        if let Some(rate) = flags.rate {
            scenario.load = Load::Paced(rate);
        }
        if let Some(outstanding) = flags.outstanding {
            scenario.load = Load::Outstanding(outstanding);
        }
    }
    Ok(scenarios)
}

fn once(flags: &RunFlags, scenario: &Scenario) -> anyhow::Result<Report> {
    let server = match &flags.url {
        Some(url) => Server::attached(address(url)?, flags.pid),
        None => Server::tidewire(&flags.server_binary, &log_file())?,
    };
    let templates = run::templates(scenario, flags.template.as_deref())?;
    Run::measure(scenario, &server, templates, flags.seconds)
}

fn log_file() -> PathBuf {
    std::env::temp_dir().join(format!("tidewire-bench-{}.log", std::process::id()))
}

/// Where `http://host:port` or `host:port` is.
fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let mut addresses = host.to_socket_addrs().with_context(|| format!("looking up {url}"))?;
    addresses.next().with_context(|| format!("{url} has no address"))
}

fn keep(file: Option<&Path>, report: &Report) -> anyhow::Result<()> {
    let Some(path) = file else { return Ok(()) };
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("writing {}", path.display()))?;
    Ok(file.write_all(line.as_bytes())?)
}
