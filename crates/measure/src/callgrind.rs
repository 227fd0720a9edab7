//! Instructions, as callgrind counts them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::benches::Counted;

/// The function of which callgrind counts the insides; see `count.rs`.
const COUNTED: &str = "--toggle-collect=*counted_by_callgrind*";

/// Instructions of one operation, by the case's name.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Counts every case, each in a process of its own so that none can move another's count, as many
/// at a time as there are processors.
pub(crate) fn count(cases: &[Counted]) -> Result<Counts> {
    let processors = processors()?;
    let next = AtomicUsize::new(0);
    let count_some = |processor: usize| -> Result<Vec<(String, f64)>> {
        let mut counted = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            counted.push((case.name.clone(), count_one(case, processor)?));
        }
        Ok(counted)
    };
    thread::scope(|scope| {
        let workers =
            processors.iter().map(|&processor| scope.spawn(move || count_some(processor)));
        let workers: Vec<_> = workers.collect();
        let mut counts = Counts::new();
        for worker in workers {
            counts.extend(worker.join().expect("counting does not panic")?);
        }
        Ok(counts)
    })
}

/// On one processor, because the engine has as many workers as it sees processors.
fn count_one(case: &Counted, processor: usize) -> Result<f64> {
    let file = std::env::temp_dir().join(format!("tidewire-{}-{processor}", std::process::id()));
    let output = Command::new("taskset")
        .args(["--cpu-list", &processor.to_string()])
        .args(["valgrind", "--tool=callgrind", "--collect-atstart=no", COUNTED])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&case.program)
        .args(["--count-case", &case.name])
        // The environment lies on the stack, and so moves what is there.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .context("starting valgrind under taskset")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind failed at {}:\n{said}", case.name);
    let total = total(&file).with_context(|| format!("counting {}", case.name))?;
    Ok(total / case.operations)
}

fn total(file: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(file).context("what callgrind wrote")?;
    let _ = std::fs::remove_file(file);
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    match total.map(str::trim) {
        None | Some("0") => bail!("callgrind did not meet the function to be counted"),
        Some(total) => total.parse().with_context(|| format!("a total of {total:?}")),
    }
}

/// The processors that this process may use.
fn processors() -> Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status").context("callgrind needs Linux")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.context("the kernel does not tell the processors")?.trim();
    let mut processors = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        processors.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
    }
    Ok(processors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_processor_to_count_on() {
        assert!(!processors().expect("Linux").is_empty());
    }
}
