//! Which logical messages `tidewire.publish` wrote: any role can write one with our prefix, so ours
//! begin with a signature of the rest, made with a key that only the definer and the server read.

use sha2::{Digest, Sha256};

/// Bytes of the signature: SHA-256 in hexadecimal digits.
const SIGNATURE: usize = 64;

/// What a message is taken for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'m> {
    /// It is ours, or of anybody where that is allowed: this is its content.
    Genuine(&'m [u8]),
    /// The key may be another by now.
    AskForKey,
    /// A stranger wrote it.
    Forged,
}

/// Tells messages of ours from others.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    key: Option<String>,
    /// Messages without a signature are taken, too.
    unsigned: bool,
    /// The key was asked for, for the message that is taken next.
    is_fresh: bool,
}

impl Signatures {
    /// Takes messages that anybody wrote, too.
    pub(super) fn allow_unsigned(&mut self) {
        self.unsigned = true;
    }

    /// Whether it does.
    pub(super) fn allows_unsigned(&self) -> bool {
        self.unsigned
    }

    /// The key is this; none where nothing is installed.
    pub(super) fn learn(&mut self, key: Option<String>) {
        (self.key, self.is_fresh) = (key, true);
    }

    /// Judges the message that is taken next.
    pub(super) fn judge<'m>(&mut self, content: &'m [u8]) -> Verdict<'m> {
        let was_fresh = std::mem::take(&mut self.is_fresh);
        let Some((signature, rest)) = split(content) else {
            return if self.unsigned { Verdict::Genuine(content) } else { Verdict::Forged };
        };
        let fits = self.key.as_ref().is_some_and(|key| signature == sign(key, rest).as_bytes());
        match (fits, was_fresh) {
            (true, _) => Verdict::Genuine(rest),
            (false, false) => Verdict::AskForKey,
            (false, true) => Verdict::Forged,
        }
    }
}

/// The signature and what it is of; `None` of what cannot be a signature.
fn split(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let (signature, rest) = content.split_at_checked(SIGNATURE)?;
    signature.iter().all(u8::is_ascii_hexdigit).then_some((signature, rest))
}

/// As `tidewire.enqueue` signs. Hashed twice, so that nobody can sign a longer text from the signature
/// of its beginning.
fn sign(key: &str, content: &[u8]) -> String {
    let inner = Sha256::new().chain_update(key).chain_update(content).finalize();
    let outer = Sha256::new().chain_update(key).chain_update(inner).finalize();
    format!("{outer:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_when_the_key_fits_and_the_key_is_asked_for_once() {
        let text = br#"{"topic":"a","text":"x"}"#;
        let signed = [sign("key", text).as_bytes(), text].concat();
        let mut signatures = Signatures::default();
        assert_eq!(signatures.judge(text), Verdict::Forged);
        assert_eq!(signatures.judge(&signed), Verdict::AskForKey);
        signatures.learn(None);
        assert_eq!(signatures.judge(&signed), Verdict::Forged);
        assert_eq!(signatures.judge(&signed), Verdict::AskForKey);
        signatures.learn(Some("key".to_owned()));
        assert_eq!(signatures.judge(&signed), Verdict::Genuine(text));
        let mut altered = signed.clone();
        *altered.last_mut().unwrap() = b' ';
        assert_eq!(signatures.judge(&altered), Verdict::AskForKey);
    }

    #[test]
    fn unsigned_messages_are_taken_only_where_that_is_allowed() {
        let mut signatures = Signatures::default();
        signatures.allow_unsigned();
        assert_eq!(signatures.judge(b"{}"), Verdict::Genuine(b"{}"));
    }
}
