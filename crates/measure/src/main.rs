//! Counts the instructions of every case of the micro-benchmarks and holds them against the budget.
//!
//! `tidewire-measure [WORD]` counts what has the word in its name. With `UPDATE_BUDGET` set, what
//! was counted becomes the budget and the table in the documentation. Exit code 1 means that
//! something costs more than its budget, or that the budget is not of these cases.

mod benches;
mod budget;
mod callgrind;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use budget::Budget;

/// Where the budget is, from the workspace.
const BUDGET: &str = "crates/measure/budget.txt";

/// Where the table of counts is, from the workspace.
const DOCUMENT: &str = "docs/performance.md";

fn main() -> Result<ExitCode> {
    let root = workspace();
    let word = std::env::args().nth(1).unwrap_or_default();
    let mut cases = benches::build(&root)?;
    cases.retain(|case| case.name.contains(&word));
    let counts = callgrind::count(&cases)?;
    let mut budget = Budget::read(&root.join(BUDGET))?;
    if std::env::var_os("UPDATE_BUDGET").is_some() {
        budget.take_over(&counts, word.is_empty());
        budget.write(&root.join(BUDGET))?;
        report::into_document(&budget, &root.join(DOCUMENT))?;
        println!("{} counts are the budget now", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    let findings = budget.compare(&counts, word.is_empty());
    print!("{}", report::of(&findings));
    let kept = findings.iter().all(|finding| finding.verdict.is_fine());
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn workspace() -> PathBuf {
    // Of this run where cargo says it: the program may have been built in another checkout.
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).expect("a crate lies in crates/").to_owned()
}
