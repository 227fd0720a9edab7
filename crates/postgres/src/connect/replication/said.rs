//! What the server says when it refuses or warns.

use std::fmt;

/// An error or a notice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The SQLSTATE, such as `42704`; it is what to match on.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
}

impl Said {
    /// Reads the fields: a letter and text, each ended by a zero.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut said = Self::default();
        for field in body.split(|&byte| byte == 0) {
            let Some((letter, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match letter {
                b'C' => said.code = text,
                b'M' => said.message = text,
                b'D' => said.detail = Some(text),
                _ => {}
            }
        }
        said
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.detail {
            Some(detail) => write!(f, ", {detail}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_code_and_words() {
        let said = Said::read(b"SERROR\0C42704\0Mno such slot\0Dreally\0\0");
        assert_eq!(said.code, "42704");
        assert_eq!(said.to_string(), "no such slot, really");
    }
}
