//! The members of one topic, and what changed since it was last told; pure.

use std::collections::HashMap;
use std::sync::Arc;

use tidewire_protocol::presence::{Member, PresenceDiff};

/// The members of one topic.
#[derive(Debug, Default)]
pub struct Roster {
    members: HashMap<Arc<str>, Member>,
    /// For each reference that changed: the member that someone may know and should forget.
    untold: HashMap<Arc<str>, Option<Member>>,
}

impl Roster {
    /// Adds a member, or replaces the one with the same reference.
    pub fn track(&mut self, member: Member) {
        let reference = Arc::clone(&member.reference);
        let before = self.members.insert(Arc::clone(&reference), member);
        self.untold.entry(reference).or_insert(before);
    }

    /// Removes the member with this reference, if it is there.
    pub fn untrack(&mut self, reference: &str) -> bool {
        let Some(member) = self.members.remove(reference) else { return false };
        let forget = self.untold.entry(Arc::clone(&member.reference)).or_default();
        forget.get_or_insert(member);
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Bytes of content of all who are there.
    pub fn bytes(&self) -> usize {
        self.members.values().map(Member::bytes).sum()
    }

    /// Whether nobody is there and nothing is left to tell.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.untold.is_empty()
    }

    /// Whether a member with this reference is there.
    pub fn contains(&self, reference: &str) -> bool {
        self.members.contains_key(reference)
    }

    /// Everyone, by order of key and reference.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.members.values().cloned().collect();
        members.sort_by(|a, b| (&a.key, &a.reference).cmp(&(&b.key, &b.reference)));
        members
    }

    /// What changed since the last time.
    ///
    /// Who came and went meanwhile, or is as before, is mentioned too: someone may have read the
    /// list in between.
    pub fn take_diff(&mut self) -> PresenceDiff {
        let mut diff = PresenceDiff::default();
        for (reference, forget) in std::mem::take(&mut self.untold) {
            diff.leaves.extend(forget);
            diff.joins.extend(self.members.get(&reference).cloned());
        }
        diff.leaves.sort_by(|a, b| a.reference.cmp(&b.reference));
        diff.joins.sort_by(|a, b| a.reference.cmp(&b.reference));
        diff
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(reference: u8, meta: u8) -> Member {
        Member {
            reference: reference.to_string().into(),
            key: format!("user-{}", reference % 3).into(),
            subject: None,
            meta: meta.to_string().into(),
        }
    }

    /// What a client does with a diff.
    fn apply(known: &mut HashMap<Arc<str>, Member>, diff: PresenceDiff) {
        for member in diff.leaves {
            known.remove(&member.reference);
        }
        for member in diff.joins {
            known.insert(Arc::clone(&member.reference), member);
        }
    }

    proptest! {
        #[test]
        fn diffs_applied_in_order_give_the_roster(
            actions in prop::collection::vec((0u8..3, 0u8..6, any::<u8>()), 0..100),
        ) {
            let mut roster = Roster::default();
            let mut known = HashMap::new();
            for (action, reference, meta) in actions {
                match action {
                    0 => roster.track(member(reference, meta)),
                    1 => { roster.untrack(&reference.to_string()); }
                    _ => apply(&mut known, roster.take_diff()),
                }
            }
            apply(&mut known, roster.take_diff());
            prop_assert_eq!(known, roster.members.clone());
        }

        #[test]
        fn a_newer_list_with_older_diffs_applied_again_gives_the_roster(
            actions in prop::collection::vec((0u8..3, 0u8..4, any::<u8>()), 0..60),
            cut in 0usize..60,
        ) {
            // A listener may read the list after the position from which it is told diffs.
            let mut roster = Roster::default();
            let mut diffs = Vec::new();
            let mut known = HashMap::new();
            for (index, (action, reference, meta)) in actions.into_iter().enumerate() {
                match action {
                    0 => roster.track(member(reference, meta)),
                    1 => { roster.untrack(&reference.to_string()); }
                    _ => diffs.push(roster.take_diff()),
                }
                if index == cut {
                    known = roster.members.clone();
                    // Everything from the last diff on is told again.
                    diffs = diffs.pop().into_iter().collect();
                }
            }
            diffs.push(roster.take_diff());
            for diff in diffs {
                apply(&mut known, diff);
            }
            prop_assert_eq!(known, roster.members.clone());
        }
    }

    #[test]
    fn who_comes_and_goes_between_two_diffs_is_told_to_have_gone() {
        let mut roster = Roster::default();
        roster.track(member(1, 0));
        roster.untrack("1");
        let diff = roster.take_diff();
        assert_eq!((diff.joins.len(), diff.leaves.len()), (0, 1));
        assert!(roster.is_empty());
    }
}
