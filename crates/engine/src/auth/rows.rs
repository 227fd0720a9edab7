//! Which rows of a table a right is about.
//!
//! A rule is a [`Filter`] in which `{sub}` stands for the subject of the client that is judged. It
//! is read once, when the right is; the subject is put into the read form as a constant, so
//! whatever characters it has, it is data and never a part of the filter.

use std::str::FromStr;
use std::sync::Arc;

use tidewire_protocol::filter::{Filter, FilterError, Test};

use super::pattern::SUBJECT;

/// Most filters that are joined for one client and table; each is judged for every row.
pub(crate) const MAX_RULES: usize = 16;

/// Which rows of a table a right is about, such as `customer_id=eq.{sub}`.
///
/// ```
/// use tidewire::RowRule;
/// use tidewire::protocol::filter::Filter;
///
/// let own: RowRule = "customer_id=eq.{sub}".parse().unwrap();
/// assert_eq!(*own.of(Some("7")).unwrap(), Filter::parse("customer_id=eq.7").unwrap());
/// assert_eq!(own.of(None), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRule {
    text: Arc<str>,
    filter: Arc<Filter>,
    names_subject: bool,
}

/// The text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowRuleError {
    /// Not a filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// `{sub}` where it would be read as something else than a value.
    #[error(
        "in a row filter {{sub}} stands for a value: after eq, neq, lt, lte, gt, gte, isdistinct \
         or in a list, neither in a pattern nor as a column"
    )]
    NotAValue,
}

impl FromStr for RowRule {
    type Err = RowRuleError;

    fn from_str(text: &str) -> Result<Self, RowRuleError> {
        let filter = Filter::parse(text)?;
        let conditions = filter.conditions();
        let is_misplaced = conditions.iter().any(|condition| {
            condition.column.contains(SUBJECT)
                || match &condition.test {
                    Test::Like(like) => like.sql().contains(SUBJECT),
                    Test::Match(regular) => regular.sql().contains(SUBJECT),
                    _ => false,
                }
        });
        if is_misplaced {
            return Err(RowRuleError::NotAValue);
        }
        let mut constants = conditions.iter().flat_map(|condition| condition.test.constants());
        let names_subject = constants.any(|constant| constant.contains(SUBJECT));
        Ok(Self { text: text.into(), filter: Arc::new(filter), names_subject })
    }
}

impl RowRule {
    /// The rows for a client with this subject; `None` for one without, where the rule names it.
    pub fn of(&self, subject: Option<&str>) -> Option<Arc<Filter>> {
        if !self.names_subject {
            return Some(Arc::clone(&self.filter));
        }
        let subject = subject.filter(|subject| !subject.is_empty())?;
        let mut filter = (*self.filter).clone();
        for condition in filter.conditions_mut() {
            for constant in condition.test.constants_mut() {
                *constant = constant.replace(SUBJECT, subject).into();
            }
        }
        Some(Arc::new(filter))
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewire_protocol::filter::{Comparison, Node};

    use super::*;

    #[test]
    fn the_subject_is_put_where_a_value_stands() {
        for (rule, subject, expected) in [
            ("a=eq.{sub}", "ann", "a=eq.ann"),
            ("a=eq.\"{sub}\"", "ann", "a=eq.ann"),
            ("a=eq.user-{sub}", "ann", "a=eq.user-ann"),
            ("a=in.({sub},public)", "ann", "a=in.(ann,public)"),
            ("or=(a.eq.{sub},b.is.true)", "ann", "or=(a.eq.ann,b.is.true)"),
            ("a=eq.7", "ann", "a=eq.7"),
        ] {
            let rule: RowRule = rule.parse().unwrap();
            assert_eq!(*rule.of(Some(subject)).unwrap(), Filter::parse(expected).unwrap());
        }
    }

    #[test]
    fn without_a_subject_a_rule_that_names_it_is_about_nothing() {
        let rule: RowRule = "a=eq.{sub}".parse().unwrap();
        assert_eq!((rule.of(None), rule.of(Some(""))), (None, None));
        let rule: RowRule = "a=eq.public".parse().unwrap();
        assert!(rule.of(None).is_some());
    }

    #[test]
    fn a_subject_in_a_pattern_is_refused() {
        for text in ["a=like.{sub}*", "a=match.^{sub}$", "{sub}=eq.1", "a=eq", ""] {
            assert!(text.parse::<RowRule>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_subject_is_it_is_one_value(subject in "[a-z,.()\"\\\\*%{}=' ]{1,20}") {
            let rule: RowRule = "a=eq.{sub},b=eq.1".parse().unwrap();
            let filter = rule.of(Some(&subject)).unwrap();
            let Node::All(list) = &filter.root else { panic!("all of two") };
            prop_assert_eq!(list.len(), 2);
            let conditions = filter.conditions();
            let expected = Test::Compare(Comparison::Equal, subject.as_str().into());
            prop_assert_eq!(&conditions[0].test, &expected);
            prop_assert_eq!(conditions.len(), 2);
        }
    }
}
