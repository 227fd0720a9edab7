//! Time in nanoseconds: what a clock on the wall shows, and what processors spent on a process.
//!
//! One clock stamps what is sent and judges what arrives, so that latencies need no agreement
//! between machines. Processor clocks are read from the kernel's own books, to the nanosecond and
//! over all threads; `/proc/PID/stat` only counts hundredths of a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since some fixed moment; never runs backwards.
pub(crate) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, nanoseconds)
}

/// Milliseconds since 1970, for reports.
pub(crate) fn since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Processor time that this process has used.
pub(crate) fn own_cpu() -> u64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0, nanoseconds)
}

/// Processor time that another process has used, all its threads together; `None` once it is gone.
pub(crate) fn cpu_of(pid: i32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
    clock_gettime(clock).ok().map(nanoseconds)
}

/// A length of time as nanoseconds.
pub(crate) fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn nanoseconds(at: TimeSpec) -> u64 {
    nanos(Duration::from(at))
}
