//! Builds the programs that hold the cases, and asks them which.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A case in one of the programs.
pub(crate) struct Counted {
    pub(crate) name: String,
    /// How many operations are counted together.
    pub(crate) operations: f64,
    pub(crate) program: PathBuf,
}

/// All cases, in the order of their crates.
pub(crate) fn build(root: &Path) -> Result<Vec<Counted>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--no-run", "--workspace", "--bench", "costs"])
        .args(["--features", "tidewire-postgres/bench"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "the benchmarks cannot be built");
    let mut cases = Vec::new();
    for program in programs(&String::from_utf8_lossy(&output.stdout))? {
        cases.extend(cases_of(&program)?);
    }
    ensure!(!cases.is_empty(), "there are no benchmarks");
    Ok(cases)
}

/// The programs that cargo says it has made, in a lasting order.
fn programs(messages: &str) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("a message of cargo")?;
        if message["target"]["kind"][0] == "bench"
            && let Some(path) = message["executable"].as_str()
        {
            let package = message["package_id"].as_str().unwrap_or_default();
            programs.push((package.to_owned(), PathBuf::from(path)));
        }
    }
    programs.sort();
    Ok(programs.into_iter().map(|(_, program)| program).collect())
}

fn cases_of(program: &Path) -> Result<Vec<Counted>> {
    let output = Command::new(program).arg("--list-cases").output();
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    let list = String::from_utf8(output.stdout).context("a list of cases")?;
    list.lines().map(|line| case(line, program)).collect()
}

fn case(line: &str, program: &Path) -> Result<Counted> {
    let Some((name, operations)) = line.rsplit_once(' ') else {
        bail!("{} lists no case with {line:?}", program.display());
    };
    let operations = operations.parse().with_context(|| format!("operations of {name}"))?;
    Ok(Counted { name: name.to_owned(), operations, program: program.to_owned() })
}
