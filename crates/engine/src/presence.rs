//! Who is here.
//!
//! A member is tracked by a session and goes with it, however the session ends. What changes is
//! told as ordinary events on the topic's presence topic, so it is ordered, and a listener that
//! falls behind reads on; only one that fell too far behind is given the whole list anew.

mod memory;
mod roster;

use async_trait::async_trait;
pub use memory::MemoryPresence;
pub use roster::Roster;
use tidewire_protocol::presence::Member;
use tidewire_protocol::{Refusal, Topic};

/// Who is on which topic.
///
/// Implementers promise, and the conformance suite checks: a member is in the list when `track`
/// has returned and not when `untrack` has; every change is published on [`Topic::presence`],
/// after it is in the list and in an order that, applied to the list as it was at any earlier
/// time, gives the list as it is; changes in quick succession may be told together.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Adds a member, or replaces the one with the same reference.
    ///
    /// # Errors
    /// `TooManyMembers`, or `Unavailable` when the store cannot be reached.
    async fn track(&self, topic: &Topic, member: Member) -> Result<(), Refusal>;

    /// Removes the member with this reference, if it is there.
    async fn untrack(&self, topic: &Topic, reference: &str);

    /// Everyone on the topic, by order of key and reference.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    async fn members(&self, topic: &Topic) -> Result<Vec<Member>, Refusal>;

    /// The same without waiting, for languages that tell it with each change: `None` where it is
    /// not known at once, or its [content](Member::bytes) is more than `bytes`.
    ///
    /// Called while the topic is locked, so it must be quick. Once a change was published, it is
    /// in the list.
    fn known_members(&self, topic: &Topic, bytes: usize) -> Option<Vec<Member>> {
        let _ = (topic, bytes);
        None
    }
}
