//! What a server costs: processor time and memory of its process and of those it started.

use std::fs;

use crate::clock;

/// Bytes of a page, as `/proc/PID/statm` counts them; 4 KiB on every machine with x86 and on most
/// others.
const PAGE: u64 = 4096;

/// A server's processes.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pids: Vec<i32>,
}

/// What they used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time in nanoseconds.
    pub(crate) cpu: u64,
    /// Of it in the program and in the kernel, each in hundredths of a second.
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    /// How often a thread had nothing to do and went to sleep.
    pub(crate) sleeps: u64,
}

impl Watched {
    /// The process and everything that descends from it now.
    pub(crate) fn tree(root: i32) -> Self {
        let parents = parents();
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&parent) = pids.get(next) {
            pids.extend(parents.iter().filter(|&&(_, of)| of == parent).map(|&(pid, _)| pid));
            next += 1;
        }
        Self { pids }
    }

    /// The process without those that descend from it.
    pub(crate) fn alone(pid: i32) -> Self {
        Self { pids: vec![pid] }
    }

    /// How many processes they are.
    pub(crate) fn count(&self) -> usize {
        self.pids.len()
    }

    /// Processor time until now.
    pub(crate) fn usage(&self) -> Usage {
        self.pids.iter().fold(Usage::default(), |sum, &pid| {
            let (user, system) = ticks(pid).unwrap_or_default();
            Usage {
                cpu: sum.cpu + clock::cpu_of(pid).unwrap_or_default(),
                user_ticks: sum.user_ticks + user,
                system_ticks: sum.system_ticks + system,
                sleeps: sum.sleeps + sleeps(pid),
            }
        })
    }

    /// Resident bytes, read exactly; slow for a large process, so not for while it is measured.
    pub(crate) fn resident(&self) -> u64 {
        self.pids.iter().map(|&pid| exactly(pid).or_else(|| roughly(pid)).unwrap_or(0)).sum()
    }

    /// Resident bytes by the kernel's running count, which is cheap and a little behind.
    pub(crate) fn resident_roughly(&self) -> u64 {
        self.pids.iter().filter_map(|&pid| roughly(pid)).sum()
    }

    /// Whether the first process is still there.
    pub(crate) fn is_alive(&self) -> bool {
        self.pids.first().is_some_and(|&pid| clock::cpu_of(pid).is_some())
    }
}

/// How often a thread of this process went to sleep.
pub(crate) fn own_sleeps() -> u64 {
    i32::try_from(std::process::id()).map_or(0, sleeps)
}

/// Seconds of processor time that processes have used which this one started and which have ended;
/// the kernel counts hundredths.
pub(crate) fn of_ended_children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |number| field::<u64>(&stat, number).unwrap_or_default();
    (ticks(16) + ticks(17)) as f64 / 100.0
}

/// Every process with its parent.
fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, field(&stat(pid)?, 4)?))).collect()
}

fn ticks(pid: i32) -> Option<(u64, u64)> {
    let stat = stat(pid)?;
    Some((field(&stat, 14)?, field(&stat, 15)?))
}

fn sleeps(pid: i32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let statuses =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    statuses.filter_map(|status| voluntary(&status)).sum()
}

fn voluntary(status: &str) -> Option<u64> {
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

fn stat(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// A field of `/proc/PID/stat` by its number in proc(5), 3 or later; the second is a name in
/// parentheses that may hold anything.
fn field<T: std::str::FromStr>(stat: &str, number: usize) -> Option<T> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn exactly(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn roughly(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_fields() {
        let stat = "17 (a) (b c) S 4 17 17 0 -1 4194560 1 2 3 4 55 66 7 8";
        assert_eq!(field::<i32>(stat, 4), Some(4));
        assert_eq!(field::<u64>(stat, 14), Some(55));
        assert_eq!(field::<u64>(stat, 15), Some(66));
    }

    #[test]
    fn sleeps_are_those_that_were_wanted() {
        let status = "Name:\ta\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(voluntary(status), Some(17));
        assert_eq!(voluntary("Name:\ta\n"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let watched = Watched::tree(i32::try_from(std::process::id()).unwrap());
        let before = watched.usage().cpu;
        let mut spun = 0_u64;
        while watched.usage().cpu == before {
            spun = std::hint::black_box(spun + 1);
        }
        assert!(watched.resident() > 1 << 20);
        assert!(watched.is_alive());
    }
}
