//! SQL's three truth values, and not knowing which.

use std::ops::Not;

/// The truth values that are possible: more than one where a value is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    yes: bool,
    no: bool,
    null: bool,
}

impl Verdict {
    pub(super) const YES: Self = Self { yes: true, no: false, null: false };
    pub(super) const NO: Self = Self { yes: false, no: true, null: false };
    pub(super) const NULL: Self = Self { yes: false, no: false, null: true };
    /// A condition on a value that is not known.
    pub(super) const UNKNOWN: Self = Self { yes: true, no: true, null: true };

    /// Whether it is true for sure.
    pub(super) fn is_certain(self) -> bool {
        self == Self::YES
    }

    /// Whether it may be true, as far as is known.
    pub(super) fn is_possible(self) -> bool {
        self.yes
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            yes: self.yes && other.yes,
            no: self.no || other.no,
            null: (self.null && (other.null || other.yes)) || (other.null && self.yes),
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        !((!self).and(!other))
    }
}

impl Not for Verdict {
    type Output = Self;

    fn not(self) -> Self {
        Self { yes: self.no, no: self.yes, null: self.null }
    }
}

impl From<bool> for Verdict {
    fn from(truth: bool) -> Self {
        if truth { Self::YES } else { Self::NO }
    }
}
