//! The yardstick: what does it cost Tidewire, or a peer, to bring messages to many clients?
//!
//! One thread drives thousands of raw sockets; the server runs as a process of its own and is
//! charged by the kernel's books. `docs/performance.md` says how to use it and what was found.

mod args;
mod backlog;
mod client;
mod clock;
mod compare;
mod inbound;
mod kernel;
mod lane;
mod latency;
mod plot;
mod process;
mod report;
mod run;
mod scenario;
mod server;
mod stamp;
mod swarm;
mod system;
mod tally;
mod template;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;

use crate::args::{Args, Command, PlotFlags, RunFlags, TableFlags};
use crate::report::Report;
use crate::run::{Effort, Run};
use crate::scenario::{Kind, Load, Scenario};
use crate::server::Server;
use crate::system::{Places, System};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run(flags) => measure(&flags),
        Command::Table(flags) => table(&flags),
        Command::Plot(flags) => draw(&flags),
        Command::List => {
            for scenario in scenario::ALL {
                println!("{:20} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewire-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every scenario with every system, a round at a time: what the machine's neighbours do falls on
/// all alike.
fn measure(flags: &RunFlags) -> anyhow::Result<()> {
    let scenarios = chosen(flags)?;
    let places = places(flags)?;
    let mut reports = Vec::new();
    let mut failed = 0;
    for _ in 0..flags.runs {
        for scenario in &scenarios {
            for &system in &flags.system {
                let Some(scenario) = system.adapt(scenario) else { continue };
                match once(flags, system, &scenario, &places) {
                    Ok(report) => {
                        keep(flags.json.as_deref(), &report)?;
                        eprint!("{}", report::table(std::slice::from_ref(&report)));
                        reports.push(report);
                    }
                    Err(error) => {
                        eprintln!("{} {}: {error:#}", scenario.name, system.name());
                        failed += 1;
                    }
                }
            }
        }
    }
    print!("{}", report::table(&reports));
    // A scratch folder is kept when something failed, for its logs.
    if failed > 0 {
        bail!("{failed} runs failed; logs are in {}", places.scratch.display());
    }
    let _ = fs::remove_dir_all(&places.scratch);
    Ok(())
}

fn chosen(flags: &RunFlags) -> anyhow::Result<Vec<Scenario>> {
    let named: Vec<_> = if flags.scenarios.is_empty() {
        scenario::ALL.to_vec()
    } else {
        flags.scenarios.iter().map(|name| scenario::named(name)).collect::<Result<_, _>>()?
    };
    let mut scenarios = Vec::new();
    for mut scenario in named {
        scenario.way = flags.way.unwrap_or(scenario.way);
        scenario.payload = flags.payload.unwrap_or(scenario.payload).max(stamp::LENGTH);
        if let Some(rate) = flags.rate {
            scenario.load = Load::Paced(rate);
        }
        if let Some(outstanding) = flags.outstanding {
            scenario.load = Load::Outstanding(outstanding);
        }
        let counts = Some(&flags.subscribers).filter(|counts| !counts.is_empty());
        for &subscribers in counts.unwrap_or(&vec![scenario.subscribers]) {
            let topics = if scenario.topics > 1 { subscribers } else { 1 };
            scenarios.push(Scenario { subscribers, topics, ..scenario.clone() });
        }
    }
    Ok(scenarios)
}

fn places(flags: &RunFlags) -> anyhow::Result<Places> {
    let scratch = std::env::temp_dir().join(format!("tidewire-bench-{}", std::process::id()));
    let current = std::env::current_dir().context("looking where this is")?;
    let peers = current.join(&flags.peers);
    Ok(Places { tidewire: flags.server_binary.clone(), peers, scratch })
}

fn once(
    flags: &RunFlags,
    system: System,
    scenario: &Scenario,
    places: &Places,
) -> anyhow::Result<Report> {
    let RunFlags { seconds, handshakes, patience, .. } = *flags;
    let effort = Effort { seconds, handshakes, patience };
    if scenario.kind == Kind::Backlog {
        return backlog::measure(scenario, places);
    }
    let server = match &flags.url {
        Some(url) => Server::attached(address(url)?, flags.pid),
        None => system.start(scenario, places)?,
    };
    let templates = system::templates(scenario, flags.template.as_deref(), places)?;
    Run::measure(scenario, &server, templates, effort)
}

/// Where `http://host:port` or `host:port` is.
fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let mut addresses = host.to_socket_addrs().with_context(|| format!("looking up {url}"))?;
    addresses.next().with_context(|| format!("{url} has no address"))
}

fn keep(file: Option<&Path>, report: &Report) -> anyhow::Result<()> {
    let Some(path) = file else { return Ok(()) };
    if let Some(folder) = path.parent() {
        let _ = fs::create_dir_all(folder);
    }
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("writing {}", path.display()))?;
    Ok(file.write_all(line.as_bytes())?)
}

fn table(flags: &TableFlags) -> anyhow::Result<()> {
    let text = compare::markdown(&read(&flags.files)?);
    let Some(path) = &flags.into else {
        print!("{text}");
        return Ok(());
    };
    let document =
        fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let name = &flags.mark;
    let missing =
        || format!("{} has no marks <!-- {name} --> and <!-- /{name} -->", path.display());
    let document = compare::put_into(&document, name, &text).with_context(missing)?;
    fs::write(path, document).with_context(|| format!("writing {}", path.display()))
}

fn draw(flags: &PlotFlags) -> anyhow::Result<()> {
    let mut reports = read(&flags.files)?;
    reports.retain(|report| report.scenario == flags.scenario);
    fs::write(&flags.out, plot::svg(&reports))
        .with_context(|| format!("writing {}", flags.out.display()))
}

/// The reports of several files of JSON lines.
fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for path in files {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        for line in text.lines() {
            let report = serde_json::from_str(line);
            reports.push(report.with_context(|| format!("a line of {}", path.display()))?);
        }
    }
    Ok(reports)
}
