//! How far the outbox was told, and that the history knows it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Ended, Reader};
use crate::outbox::place::{Part, Place};

/// How often progress that brought nothing is kept: rarely enough that tables nobody listens to
/// cost a history little, often enough that their rows do not pile up.
const KEEP_PAUSE: Duration = Duration::from_secs(1);

/// A place that was kept.
pub(super) struct Kept {
    pub(super) place: Place,
    at: Instant,
    /// Rows were read since.
    pub(super) is_old: bool,
}

impl Reader {
    /// How far everything is told once what the teller has is handed over.
    pub(super) fn here(&self) -> Place {
        let place = self.place.clone().expect("it was found when reading began");
        match self.seen.clone().zip(self.window.spot()) {
            Some((seen, spot)) => Place { part: Some(Part { seen, spot }), ..place },
            None => place,
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), tidewire::Error> {
        if self.place.is_none() {
            return Ok(());
        }
        let here = self.here();
        if self.teller.flush(&here).await? {
            self.was_kept(here.clone());
        }
        self.place = Some(here);
        Ok(())
    }

    async fn flush_all(&mut self) -> Result<(), tidewire::Error> {
        self.flush().await?;
        self.keep_if(|kept| kept.is_old).await
    }

    /// The history holds everything up to there, and says so.
    pub(super) fn was_kept(&mut self, place: Place) {
        if self.teller.publisher.keeps_marks() {
            self.kept = Some(Kept { place, at: Instant::now(), is_old: false });
        }
    }

    /// Rows that brought nothing are to be removed, too, and for that they must be behind what is
    /// kept.
    pub(super) async fn keep_now_and_then(&mut self) -> Result<(), tidewire::Error> {
        self.keep_if(|kept| kept.is_old && kept.at.elapsed() >= KEEP_PAUSE).await
    }

    async fn keep_if(&mut self, is_due: impl Fn(&Kept) -> bool) -> Result<(), tidewire::Error> {
        if self.kept.as_ref().is_some_and(is_due) {
            let here = self.here();
            self.teller.keep(&here).await?;
            self.was_kept(here);
        }
        Ok(())
    }

    /// What was read and not handed over is read again.
    pub(super) fn forget_poll(&mut self) {
        self.teller.forget_drafts();
        self.window.begin(None);
        self.seen = None;
    }

    /// What counts as told is told before a gap that the next connection may bring.
    pub(super) async fn leave(&mut self, ended: Ended) -> Ended {
        let flushed = match &ended {
            // Nobody knows what it took, so that is asked first.
            Ended::History(_) => Ok(()),
            _ => self.flush_all().await,
        };
        self.forget_poll();
        flushed.err().map_or(ended, Ended::History)
    }
}
