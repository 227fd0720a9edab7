//! Where a connection begins to read: behind what was told, or after a gap.
//!
//! What was told is what the history holds, where it outlives the process: also what this process
//! itself handed over may have been taken or not when it failed.

use tidewire_protocol::GapReason;
use tokio::time::Instant;

use super::{Ended, Pace, Reader, Reading, Upkeep};
use crate::outbox::link::Link;
use crate::outbox::marks::Remembered;
use crate::outbox::place::{Place, Scene};
use crate::sql;

impl Reader {
    /// Becomes the reader and finds the place to go on from.
    pub(super) async fn begin(&mut self, link: &Link) -> Result<Reading, Ended> {
        let installed = link.answer(sql::found(link.client())).await?;
        let installed = sql::usable(installed).map_err(Ended::Waiting)?;
        if !link.become_reader().await? {
            let who = link.other_reader().await.map_or_else(String::new, |pid| format!(" ({pid})"));
            let why = format!("another Tidewire server reads this database's outbox{who}");
            return Err(Ended::Waiting(why));
        }
        if installed.sink != sql::Sink::Outbox.word() {
            self.claim_messages(link).await;
        }
        let scene = link.take_over().await?;
        self.go_on(&scene).await?;
        let poll = link.prepare_poll().await?;
        Ok(Reading {
            poll,
            pace: Pace::new(self.options.poll_interval, scene.may_sleep, Instant::now()),
            brought: false,
            upkeep: Upkeep::due_now(),
        })
    }

    /// `tidewire.publish` has to say things where somebody reads.
    async fn claim_messages(&self, link: &Link) {
        const SQL: &str = "UPDATE tidewire.settings SET sink = 'outbox'";
        if let Err(error) = link.answer(link.client().batch_execute(SQL)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "tidewire.publish still writes to the write-ahead log, which is not read"
            );
        }
    }

    /// Goes on where reading ended, or tells that it cannot.
    async fn go_on(&mut self, scene: &Scene) -> Result<(), Ended> {
        let lasts = self.teller.publisher.keeps_marks();
        let mut remembered = match lasts {
            true => Remembered::read(&self.teller.publisher).await?,
            false => Remembered { place: self.place.clone(), ..Remembered::default() },
        };
        self.teller.recall(&remembered);
        let is_first = self.place.is_none();
        match remembered.place.take() {
            Some(place) => match place.judge(scene) {
                None => self.resume(place),
                lost => self.begin_at(scene.place(), lost).await?,
            },
            // Whatever told them before did not say how far.
            None if self.teller.has_told() => {
                self.begin_at(scene.place(), Some(GapReason::ConnectionLost)).await?;
            }
            None => self.begin_at(scene.place(), None).await?,
        }
        if is_first {
            let until = Instant::now() + self.options.linger;
            for (topic, told) in &remembered.tables {
                self.shared.inherit(topic, &told.naming, until);
            }
        }
        Ok(())
    }

    /// Nothing is missing between the place and what comes.
    fn resume(&mut self, place: Place) {
        match self.place.is_some() {
            true => drop(self.shared.metrics.reconnects.inc()),
            false => tracing::info!("reading the outbox goes on behind what the history holds"),
        }
        self.was_kept(place.clone());
        self.place = Some(place);
    }

    /// Begins at a place before which, for a reason, something may be missing.
    pub(super) async fn begin_at(
        &mut self,
        place: Place,
        lost: Option<GapReason>,
    ) -> Result<(), tidewire::Error> {
        if let Some(reason) = lost {
            tracing::warn!(%reason, "changes of all tables that are followed were lost");
            self.teller.lose(reason, &place).await?;
        } else if self.teller.publisher.keeps_marks() {
            self.teller.keep(&place).await?;
        }
        self.was_kept(place.clone());
        self.place = Some(place);
        Ok(())
    }
}
