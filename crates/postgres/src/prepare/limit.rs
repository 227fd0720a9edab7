//! Rows beyond which nothing is shown: their constants must mean themselves.
//!
//! A limit is made for one subject, which stands in it as a constant. PostgreSQL reads `007` and
//! `7` as the same number, so two subjects would see the same rows if every way of writing a value
//! were taken. Only the one in which PostgreSQL prints it is.

use tidewire_protocol::filter::{Filter, Kind};
use tidewire_protocol::{Code, Refusal};

/// Checks that every constant of `asked` is the only way to write the value that it became.
///
/// # Errors
/// [`Code::Forbidden`] for the first that is not.
pub(super) fn check<'k>(
    asked: &Filter,
    read: &Filter,
    kind: impl Fn(&str) -> &'k Kind,
) -> Result<(), Refusal> {
    for (asked, read) in asked.conditions().into_iter().zip(read.conditions()) {
        let pairs = asked.test.constants().iter().zip(read.test.constants());
        for (written, printed) in pairs {
            if written != printed || !is_single(kind(&asked.column), printed) {
                let message = format!(
                    "the rows that may be shown here are limited by column {:?} to a value that \
                     is not written as PostgreSQL prints it, so it could be another's",
                    asked.column
                );
                return Err(Refusal::new(Code::Forbidden, message));
            }
        }
    }
    Ok(())
}

/// Whether no other text that PostgreSQL prints is equal to this one.
fn is_single(kind: &Kind, text: &str) -> bool {
    match kind {
        Kind::Decimal | Kind::Single | Kind::Double => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            text != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        Kind::Padded(_) => !text.ends_with(' '),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_can_be_written_in_two_ways_is_refused() {
        let filter = |text: &str| Filter::parse(text).unwrap();
        for (asked, read, kind, expected) in [
            ("a=eq.7", "a=eq.7", Kind::Integer, true),
            ("a=eq.007", "a=eq.7", Kind::Integer, false),
            ("a=eq. 7", "a=eq.7", Kind::Integer, false),
            ("a=in.(1,02)", "a=in.(1,2)", Kind::Integer, false),
            ("a=eq.7", "a=eq.7", Kind::Decimal, true),
            ("a=eq.-7", "a=eq.-7", Kind::Decimal, true),
            ("a=eq.7.0", "a=eq.7.0", Kind::Decimal, false),
            ("a=eq.-0", "a=eq.-0", Kind::Double, false),
            ("or=(a.eq.1,a.eq.01)", "or=(a.eq.1,a.eq.1)", Kind::Integer, false),
        ] {
            let found = check(&filter(asked), &filter(read), |_| &kind);
            assert_eq!(found.is_ok(), expected, "{asked}");
        }
    }
}
