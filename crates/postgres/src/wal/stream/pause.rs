//! Pauses of less than a millisecond, which Tokio's timers do not have.

use std::io;
use std::time::Duration;

/// One pause at a time.
pub(super) struct Pause(kind::Timer);

impl Pause {
    /// # Errors
    /// When the system has no timer for us.
    pub(super) fn new() -> io::Result<Self> {
        kind::Timer::new().map(Self)
    }

    /// Begins a pause.
    ///
    /// # Errors
    /// When the timer does not work.
    pub(super) fn begin(&mut self, length: Duration) -> io::Result<()> {
        self.0.set(length)
    }

    /// Waits for the end of a pause that has begun. Cancel safe.
    pub(super) async fn end(&mut self) {
        self.0.expired().await;
    }
}

/// Linux has timers that are files, and they are read as a pipe is.
#[cfg(target_os = "linux")]
mod kind {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe::Receiver;

    pub(super) struct Timer {
        timer: TimerFd,
        ticks: Receiver,
    }

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            let same = timer.as_fd().try_clone_to_owned()?;
            Ok(Self { timer, ticks: Receiver::from_owned_fd_unchecked(same)? })
        }

        pub(super) fn set(&mut self, length: Duration) -> io::Result<()> {
            let once = Expiration::OneShot(length.into());
            Ok(self.timer.set(once, TimerSetTimeFlags::empty())?)
        }

        pub(super) async fn expired(&mut self) {
            // A number of eight bytes; where a read takes less than it could, Tokio knows that
            // there is no more. One that fails makes the pause short, no worse.
            let _ = self.ticks.read(&mut [0; 16]).await;
        }
    }
}

/// Elsewhere a pause takes a millisecond or two.
#[cfg(not(target_os = "linux"))]
mod kind {
    use std::io;
    use std::time::Duration;

    use tokio::time::{Instant, sleep_until};

    pub(super) struct Timer(Instant);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(Instant::now()))
        }

        pub(super) fn set(&mut self, length: Duration) -> io::Result<()> {
            self.0 = Instant::now() + length;
            Ok(())
        }

        pub(super) async fn expired(&mut self) {
            sleep_until(self.0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pause_ends_and_another_can_begin() {
        let mut pause = Pause::new().unwrap();
        for _ in 0..3 {
            let length = Duration::from_micros(300);
            let begun = tokio::time::Instant::now();
            pause.begin(length).unwrap();
            pause.end().await;
            assert!(begun.elapsed() >= length);
        }
    }
}
