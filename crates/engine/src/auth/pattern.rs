//! Names of topics by pattern.
//!
//! A pattern may name the subject of the client that is judged. The subject is compared byte by
//! byte: whatever characters it has, it stands for itself and is never read as a pattern.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tidewire_protocol::{Topic, TopicKind};

/// What stands for the subject of the client.
pub(super) const SUBJECT: &str = "{sub}";

/// Names of topics; `*` stands for any run of characters, `{sub}` for the subject of the client
/// that is judged.
///
/// Begins with a kind and a colon (`topic:`, `private:`, `notify:`, `table:`) to mean that kind;
/// without one it means application topics. So `*` is every application topic, and private topics,
/// tables and NOTIFY channels are only meant by patterns that name their kind.
///
/// A pattern with `{sub}` matches nothing for a client without a subject. Where a `*` could make
/// the topics of two subjects overlap, a subject that contains the character between the two is
/// not matched: `user:{sub}:*` is nothing for the subject `a:b`, which would otherwise have topics
/// of the subject `a`. For the same reason a subject with a dot is not matched in a table's name.
///
/// ```
/// use tidewire::{Pattern, Topic};
///
/// let rooms: Pattern = "room:*".parse().unwrap();
/// assert!(rooms.matches(&Topic::application("room:42").unwrap(), None));
/// assert!(!rooms.matches(&Topic::notify("room:42").unwrap(), None));
///
/// let own: Pattern = "private:user:{sub}".parse().unwrap();
/// assert!(own.matches(&Topic::private("user:ann").unwrap(), Some("ann")));
/// assert!(!own.matches(&Topic::private("user:bob").unwrap(), Some("ann")));
/// assert!(!own.matches(&Topic::private("user:bob").unwrap(), Some("*")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    kind: TopicKind,
    /// What stands between the stars, of which there is one less.
    runs: Arc<[Run]>,
    /// The same with a star in place of each `{sub}`.
    covering: Arc<[Run]>,
}

/// A run of characters without a star.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Subject,
}

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or more than could match a name.
    #[error("a topic pattern must not be empty, nor longer than a topic's name")]
    Length,
    /// A word in braces that stands for nothing.
    #[error("a topic pattern knows {{sub}} and no other word in braces")]
    Placeholder,
    /// A star right beside `{sub}`, or on both sides of it.
    #[error(
        "a star right beside {{sub}}, or one on each side of it, would match the topics of other \
         subjects: put a character such as a colon between the two, and stars on one side only"
    )]
    OpenSubject,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let kinds =
            [TopicKind::Application, TopicKind::Private, TopicKind::Table, TopicKind::Notify];
        let named = kinds
            .into_iter()
            .find_map(|kind| Some((kind, text.strip_prefix(kind.word())?.strip_prefix(':')?)));
        let (kind, name) = named.unwrap_or((TopicKind::Application, text));
        if name.is_empty() || name.len() > tidewire_protocol::topic::MAX_NAME_BYTES {
            return Err(PatternError::Length);
        }
        let runs: Vec<Run> = name.split('*').map(Run::read).collect::<Result<_, _>>()?;
        let last = runs.len() - 1;
        let is_open = |(index, run): (usize, &Run)| {
            (index > 0 && run.0.first() == Some(&Piece::Subject))
                || (index < last && run.0.last() == Some(&Piece::Subject))
        };
        let names_subject = runs.iter().any(Run::names_subject);
        let is_anchored = runs[0].names_subject() || runs[last].names_subject();
        if runs.iter().enumerate().any(is_open) || names_subject && !is_anchored {
            return Err(PatternError::OpenSubject);
        }
        let covering = name.replace(SUBJECT, "*");
        let covering: Vec<Run> = covering.split('*').map(Run::read).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), kind, runs: runs.into(), covering: covering.into() })
    }
}

impl Run {
    fn read(text: &str) -> Result<Self, PatternError> {
        let mut pieces = Vec::new();
        for (index, part) in text.split(SUBJECT).enumerate() {
            if has_placeholder(part) {
                return Err(PatternError::Placeholder);
            }
            if index > 0 {
                pieces.push(Piece::Subject);
            }
            if !part.is_empty() {
                pieces.push(Piece::Text(part.into()));
            }
        }
        Ok(Self(pieces))
    }

    fn names_subject(&self) -> bool {
        self.0.contains(&Piece::Subject)
    }

    /// The run with the subject in its place.
    fn with<'a>(&'a self, subject: &str) -> Cow<'a, str> {
        match &self.0[..] {
            [] => Cow::Borrowed(""),
            [Piece::Text(text)] => Cow::Borrowed(text),
            pieces => Cow::Owned(pieces.iter().map(|piece| piece.with(subject)).collect()),
        }
    }

    /// Whether the subject contains a character that bounds it on the side of a star.
    fn is_blurred_by(&self, subject: &str, star_before: bool, star_after: bool) -> bool {
        let text = |place: Option<usize>| match self.0.get(place?)? {
            Piece::Text(text) => Some(text),
            Piece::Subject => None,
        };
        self.0.iter().enumerate().filter(|(_, piece)| **piece == Piece::Subject).any(|(at, _)| {
            let before = text(at.checked_sub(1)).and_then(|text| text.chars().next_back());
            let after = text(Some(at + 1)).and_then(|text| text.chars().next());
            star_before && before.is_some_and(|bound| subject.contains(bound))
                || star_after && after.is_some_and(|bound| subject.contains(bound))
        })
    }
}

impl Piece {
    fn with<'a>(&'a self, subject: &'a str) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Subject => subject,
        }
    }
}

/// Whether a word stands in braces, as in `{user}`.
fn has_placeholder(text: &str) -> bool {
    text.split('{').skip(1).any(|rest| {
        let word = rest.split_once('}').map(|(word, _)| word);
        word.is_some_and(|word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    })
}

impl Pattern {
    /// Whether the topic is among those meant, for a client with this subject.
    pub fn matches(&self, topic: &Topic, subject: Option<&str>) -> bool {
        if topic.kind() != self.kind {
            return false;
        }
        if !self.names_subject() {
            return matches(&self.runs, topic.name(), "");
        }
        match subject {
            Some(subject) if self.tells_apart(subject) => {
                matches(&self.runs, topic.name(), subject)
            }
            _ => false,
        }
    }

    /// Whether the topic may be among those meant for some subject: a rule for topics of each
    /// client's own also says that those of others are not.
    pub fn covers(&self, topic: &Topic) -> bool {
        topic.kind() == self.kind && matches(&self.covering, topic.name(), "")
    }

    /// Which topics are meant.
    pub fn kind(&self) -> TopicKind {
        self.kind
    }

    /// Whether it means other topics for each subject.
    pub fn names_subject(&self) -> bool {
        self.runs.iter().any(Run::names_subject)
    }

    /// Whether what is matched for this subject is matched for no other.
    fn tells_apart(&self, subject: &str) -> bool {
        let last = self.runs.len() - 1;
        let mut runs = self.runs.iter().enumerate();
        let is_blurred = runs.any(|(at, run)| run.is_blurred_by(subject, at > 0, at < last));
        let has_dot = self.kind == TopicKind::Table && subject.contains('.');
        !(subject.is_empty() || has_dot || is_blurred)
    }
}

/// The first run begins the name, the last one ends it, and each between them is found as early as
/// it can be, which leaves the most for the rest.
fn matches(runs: &[Run], name: &str, subject: &str) -> bool {
    let (first, rest) = runs.split_first().expect("a pattern has at least one run");
    let Some((last, middle)) = rest.split_last() else {
        return first.with(subject) == name;
    };
    let Some(name) = name.strip_prefix(&*first.with(subject)) else { return false };
    let Some(mut name) = name.strip_suffix(&*last.with(subject)) else { return false };
    for run in middle {
        let Some((_, after)) = name.split_once(&*run.with(subject)) else { return false };
        name = after;
    }
    true
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, subject: Option<&str>, name: &str, expected: bool) {
        let parsed: Pattern = pattern.parse().unwrap();
        let topic = Topic::new(parsed.kind(), name).unwrap();
        assert_eq!(parsed.matches(&topic, subject), expected, "{pattern} {subject:?} {name}");
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a*a", "a", false),
            ("*:42", "room:42", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXc", false),
            ("a**c", "ac", true),
            ("room:", "room:", true),
            ("room:", "room:1", false),
        ] {
            check(pattern, None, name, expected);
        }
    }

    #[test]
    fn a_pattern_without_a_kind_means_application_topics_alone() {
        for pattern in ["*", "public.*", "p*"] {
            let pattern: Pattern = pattern.parse().unwrap();
            let name = "public.orders";
            assert!(pattern.matches(&Topic::application(name).unwrap(), None));
            for other in [Topic::private(name), Topic::table(name), Topic::notify(name)] {
                assert!(!pattern.matches(&other.unwrap(), None), "{pattern}");
            }
        }
    }

    #[test]
    fn a_pattern_with_a_kind_means_that_kind_alone() {
        for (pattern, topic) in [
            ("topic:*", Topic::application("public.a")),
            ("private:*", Topic::private("public.a")),
            ("table:*", Topic::table("public.a")),
            ("notify:*", Topic::notify("public.a")),
        ] {
            let (pattern, topic): (Pattern, _) = (pattern.parse().unwrap(), topic.unwrap());
            assert!(pattern.matches(&topic, None), "{pattern}");
            for kind in TopicKind::ALL.into_iter().filter(|kind| *kind != topic.kind()) {
                let other = Topic::new(kind, topic.name()).unwrap();
                assert!(!pattern.matches(&other, None), "{pattern} {other}");
            }
        }
    }

    #[test]
    fn a_subject_stands_for_itself_and_nothing_else() {
        for (pattern, subject, name, expected) in [
            ("user:{sub}", Some("ann"), "user:ann", true),
            ("user:{sub}", Some("ann"), "user:anna", false),
            ("user:{sub}", Some("ann"), "user:bob", false),
            ("user:{sub}", None, "user:", false),
            ("user:{sub}", None, "user:{sub}", false),
            ("user:{sub}", Some(""), "user:", false),
            // A subject is no pattern.
            ("user:{sub}", Some("*"), "user:ann", false),
            ("user:{sub}", Some("*"), "user:*", true),
            ("user:{sub}", Some("a*"), "user:ann", false),
            ("user:{sub}", Some("{sub}"), "user:{sub}", true),
            ("{sub}", Some("private:vault"), "vault", false),
            ("user:{sub}", Some("a:b"), "user:a:b", true),
            ("user:{sub}:inbox", Some("a:b"), "user:a:b:inbox", true),
            ("user:{sub}:*", Some("ann"), "user:ann:inbox", true),
            // The topics of one subject are never among those of another.
            ("user:{sub}:*", Some("a:b"), "user:a:b:inbox", false),
            ("room:*:{sub}", Some("ann"), "room:1:ann", true),
            ("room:*:{sub}", Some("1:ann"), "room:1:1:ann", false),
            ("table:{sub}.orders", Some("shop"), "shop.orders", true),
            ("table:{sub}.orders", Some("public.hidden"), "public.hidden.orders", false),
            ("table:public.{sub}", Some("a.b"), "public.a.b", false),
        ] {
            check(pattern, subject, name, expected);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, expected) in [
            ("", PatternError::Length),
            ("notify:", PatternError::Length),
            ("user:{subject}", PatternError::Placeholder),
            ("user:{Sub}", PatternError::Placeholder),
            ("user:{sub}*", PatternError::OpenSubject),
            ("user:*{sub}", PatternError::OpenSubject),
            ("room:*:{sub}:*", PatternError::OpenSubject),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(expected), "{text}");
        }
        assert!("x".repeat(256).parse::<Pattern>().is_err());
    }

    /// Every way to match, tried.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|at| slowly(rest, &name[at..])),
            Some((first, rest)) => name.first() == Some(first) && slowly(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_name_is_matched_as_by_trying_every_way(
            pattern in "[ab*]{1,8}", name in "[ab]{1,10}",
        ) {
            let parsed: Pattern = pattern.parse().unwrap();
            let topic = Topic::application(&name).unwrap();
            let expected = slowly(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(parsed.matches(&topic, None), expected, "{} {}", pattern, name);
        }

        #[test]
        fn no_topic_belongs_to_two_subjects(
            pattern in "(a:)?(\\*:)?\\{sub\\}(:\\*)?(:a)?",
            one in "[ab:*{}.]{1,4}", other in "[ab:*{}.]{1,4}",
            name in "[ab:*{}.]{1,12}",
        ) {
            prop_assume!(one != other);
            let Ok(pattern) = pattern.parse::<Pattern>() else { return Ok(()) };
            let fitting = pattern.to_string().replace('*', "a").replace("{sub}", &one);
            for name in [name, fitting] {
                let topic = Topic::application(&name).unwrap();
                let mine = [&one, &other].map(|subject| pattern.matches(&topic, Some(subject)));
                prop_assert!(mine != [true; 2], "{} {} {} {}", pattern, name, one, other);
                prop_assert!(mine == [false; 2] || pattern.covers(&topic), "{} {}", pattern, name);
            }
        }
    }
}
