//! Pulling from the history until a subscription can go live.

use std::sync::Arc;
use std::time::Duration;

use tidewire_protocol::{Answer, Event, GapReason, Position, TopicKind};

use super::{Phase, Session};
use crate::history::Page;
use crate::relay::gap_event;

/// Events read at a time: a page of small events fits the default mailbox many times, and one of
/// the largest is turned down rarely.
pub(super) const PAGE: usize = 64;

/// Pause after a history that could not be read.
const RETRY: Duration = Duration::from_secs(1);

impl Session {
    /// Does one step for one subscription that is behind, if there is one and there is room.
    ///
    /// Cancel safe: what was read is handed over in one go after the last wait.
    pub(super) async fn catch_up(&mut self) -> bool {
        if !self.mailbox.has_room(self.node.limits.load().mailbox_bytes) {
            return false;
        }
        let behind = self.subscriptions.iter().enumerate().find_map(|(index, held)| {
            let Phase::CatchingUp { after } = held.phase else { return None };
            Some((index, after))
        });
        let Some((index, after)) = behind else { return false };
        if !self.try_to_go_live(index, after) {
            self.pull(index, after).await;
        }
        true
    }

    pub(super) fn try_to_go_live(&mut self, index: usize, after: Position) -> bool {
        let held = &self.subscriptions[index];
        let form = self.form_with(held.tag.as_ref());
        let member = self.member(held.key);
        let live = held.entry().live.lock().go_live(member, &form, after);
        if live {
            self.subscriptions[index].phase = Phase::Live;
        }
        live
    }

    async fn pull(&mut self, index: usize, after: Position) {
        let topic = self.subscriptions[index].topic();
        match self.node.history.read(&topic, after, PAGE).await {
            Ok(Page::Events(events)) if events.is_empty() => {
                // The relay has not come to what the history has; it is about to.
                tokio::task::yield_now().await;
            }
            Ok(Page::Events(events)) => self.hand_over(index, &events),
            Ok(Page::Lost { head, reason }) => self.lose_place(index, head, reason).await,
            Err(error) => {
                self.node.metrics.failures.inc();
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%topic, error, "catching up");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Hands events to this session alone, and notes how far it came.
    pub(super) fn hand_over(&mut self, index: usize, events: &[Arc<Event>]) {
        let held = &self.subscriptions[index];
        let form = self.form_with(held.tag.as_ref());
        let Some(last) = events.last() else { return };
        let mine = events.iter().filter(|event| event.audience.admits(self.id));
        // A page is always taken: there was room for half a mailbox.
        let _ = form.encode(mine).offer_to(|outgoing| self.mailbox.offer(outgoing, usize::MAX));
        self.node.metrics.deliveries.inc_by(events.len() as u64);
        self.subscriptions[index].phase = Phase::CatchingUp { after: last.position };
    }

    /// What this subscription should have next is gone: says so, and goes on from the head.
    async fn lose_place(&mut self, index: usize, head: Position, reason: GapReason) {
        let topic = self.subscriptions[index].topic();
        if topic.kind() == TopicKind::Presence {
            return self.tell_members_anew(index, head).await;
        }
        self.node.metrics.gap(reason);
        let gap = Arc::new(gap_event(&topic, head, reason));
        self.hand_over(index, &[gap]);
    }

    /// A listener that lost changes of presence is given the whole list.
    async fn tell_members_anew(&mut self, index: usize, head: Position) {
        let topic = self.subscriptions[index].topic().subject();
        let Ok(members) = self.node.presence.members(&topic).await else {
            return tokio::time::sleep(RETRY).await;
        };
        let tag = self.subscriptions[index].tag.clone();
        self.say(&Answer::Members { topic, members, tag });
        self.subscriptions[index].phase = Phase::CatchingUp { after: head };
    }
}
