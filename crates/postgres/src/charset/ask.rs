//! Asking PostgreSQL what characters are, and how it would store a name.
//!
//! A conversion that fails raises an error, which the server logs. So it is done where errors are
//! caught, and a setting of the session brings back what was found.

use tokio_postgres::Client;

use super::{Character, Charset, Encoding};
use crate::connect::fails_again;

/// Characters in one question, each of which is a savepoint of its own.
const AT_ONCE: usize = 1_000;

/// Converts characters, in hexadecimal digits, one by one: what each is in UTF-8, or `-`.
const CONVERT: &str = "\
DO $ask$
DECLARE
  one pg_catalog.text;
  found pg_catalog.text := '';
BEGIN
  FOREACH one IN ARRAY '{@characters@}'::pg_catalog.text[] LOOP
    BEGIN
      found := pg_catalog.concat(found, ' ', pg_catalog.encode(pg_catalog.convert(
        pg_catalog.decode(one, 'hex'), pg_catalog.getdatabaseencoding(), 'UTF8'), 'hex'));
    EXCEPTION WHEN data_exception THEN
      found := pg_catalog.concat(found, ' -');
    END;
  END LOOP;
  PERFORM pg_catalog.set_config('tidewire.characters', found, false);
END
$ask$";

const FOUND: &str = "SELECT pg_catalog.current_setting('tidewire.characters')";

impl Charset {
    /// The characters of a database.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub(crate) async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        const SQL: &str = "SELECT pg_catalog.getdatabaseencoding()::pg_catalog.text";
        let row = client.query_one(SQL, &[]).await?;
        let mut charset = Self::of(Encoding::named(row.try_get(0)?));
        if charset.encoding == Encoding::Bytes {
            // All that there are, so that nothing waits for them later.
            let all: Vec<Character> = (0x80..=0xff).collect();
            charset.learn(client, &all).await?;
        }
        Ok(charset)
    }

    /// Asks what characters are.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub(crate) async fn learn(
        &mut self,
        client: &Client,
        characters: &[Character],
    ) -> Result<(), tokio_postgres::Error> {
        for some in characters.chunks(AT_ONCE) {
            let found = match found(client, some).await {
                // Such as a role that may not use PL/pgSQL: nothing else would help.
                Err(error) if fails_again(&error) => {
                    tracing::warn!(%error, "characters cannot be converted, so they are unreadable");
                    String::new()
                }
                found => found?,
            };
            self.know(answers(some, &found));
        }
        Ok(())
    }
}

async fn found(client: &Client, characters: &[Character]) -> Result<String, tokio_postgres::Error> {
    client.batch_execute(&question(characters)).await?;
    client.query_one(FOUND, &[]).await?.try_get(0)
}

/// Text as the database stores it.
///
/// # Errors
/// When PostgreSQL cannot be asked, and when the text has a character that the encoding has not.
pub(crate) async fn encode(client: &Client, text: &str) -> Result<Vec<u8>, tokio_postgres::Error> {
    const SQL: &str =
        "SELECT pg_catalog.convert_to($1::pg_catalog.text, pg_catalog.getdatabaseencoding())";
    client.query_one(SQL, &[&text]).await?.try_get(0)
}

fn question(characters: &[Character]) -> String {
    let digits: Vec<String> = characters.iter().map(|character| hex(*character)).collect();
    CONVERT.replace("@characters@", &digits.join(","))
}

/// Whole bytes: the first one is never zero.
fn hex(character: Character) -> String {
    let bytes = character.to_be_bytes();
    let bytes = bytes.iter().skip_while(|byte| **byte == 0);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Each character with what it is. An answer that makes no sense is none.
fn answers(asked: &[Character], found: &str) -> Vec<(Character, Option<Box<str>>)> {
    let mut words = found.split_ascii_whitespace();
    asked.iter().map(|character| (*character, words.next().and_then(text))).collect()
}

fn text(digits: &str) -> Option<Box<str>> {
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_each_character_and_an_answer_belongs_to_it() {
        let asked = [0x81, 0xe9, 0xc6fc];
        assert!(question(&asked).contains("'{81,e9,c6fc}'"));
        let found = answers(&asked, " - c3a9 e697a5");
        let expected = [(0x81, None), (0xe9, Some("é".into())), (0xc6fc, Some("日".into()))];
        assert_eq!(found, expected);
        assert_eq!(answers(&asked[..1], "c3"), [(0x81, None)]);
    }
}
