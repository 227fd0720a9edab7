//! Who is here: the words for it. The rules are the engine's.

use std::sync::Arc;

/// One tracked client on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique for this tracking; tells two connections with the same key apart.
    pub reference: Arc<str>,
    /// What the application calls the member, such as a user's id; several may share it.
    ///
    /// The client's own claim, which nobody has checked.
    pub key: Arc<str>,
    /// Whom the client's token names, which was checked; `None` for a client without a subject.
    pub subject: Option<Arc<str>>,
    /// JSON text that the client attached.
    pub meta: Arc<str>,
}

impl Member {
    /// Bytes of content, for limits.
    pub fn bytes(&self) -> usize {
        let subject = self.subject.as_ref().map_or(0, |subject| subject.len());
        self.reference.len() + self.key.len() + subject + self.meta.len()
    }
}

/// What changed on a topic: apply leaves first, then joins.
///
/// Both can be applied twice without harm: a join replaces the member with the same reference and
/// a leave of someone unknown is nothing. A member who changes its meta leaves and joins in one
/// diff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceDiff {
    /// Who came.
    pub joins: Vec<Member>,
    /// Who went.
    pub leaves: Vec<Member>,
}

impl PresenceDiff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.joins.iter().chain(&self.leaves).map(Member::bytes).sum()
    }
}
