//! Publishing by statements to PostgreSQL: its simple query protocol, as much of it as that needs.
//!
//! Only for a server that trusts this client, as a private cluster does: no password is known here.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::{Heard, Speech, filled};
use crate::inbound::{Broken, through};

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 196_608;

/// As whom to which database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
}

/// A session with PostgreSQL.
pub(crate) struct Sql {
    login: Login,
    /// Carried out in turns.
    statements: Vec<String>,
    turn: usize,
    left: Vec<u8>,
    is_ready: bool,
    error: Option<String>,
    /// The first column of the last row that came.
    told: Option<String>,
}

impl Sql {
    pub(crate) fn new(login: Login, statements: Vec<String>) -> Self {
        let (left, is_ready) = (Vec::new(), false);
        Self { login, statements, turn: 0, left, is_ready, error: None, told: None }
    }
}

impl Speech for Sql {
    fn hello(&self, out: &mut Vec<u8>) {
        let Login { user, database } = &self.login;
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", user, "database", database] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        put_length(out, body.len());
        out.extend_from_slice(&body);
    }

    fn put(&mut self, out: &mut Vec<u8>, topic: &str, payload: &str) {
        let statement = &self.statements[self.turn % self.statements.len()];
        let statement = filled(statement, topic, payload);
        self.turn += 1;
        out.push(b'Q');
        put_length(out, statement.len() + 1);
        out.extend_from_slice(statement.as_bytes());
        out.push(0);
    }

    fn hear(
        &mut self,
        bytes: &[u8],
        _: &mut Vec<u8>,
        tell: &mut dyn FnMut(Heard),
    ) -> Result<(), Broken> {
        let Self { left, is_ready, error, told, .. } = self;
        through(left, bytes, |bytes| {
            let mut at = 0;
            while let Some((kind, body)) = message(&bytes[at..]) {
                at += body.len() + 5;
                match kind {
                    b'R' if body != [0; 4] => return Err(Broken("PostgreSQL wants a password")),
                    b'E' if !*is_ready => return Err(Broken("PostgreSQL refuses the connection")),
                    b'E' => *error = Some(words(body)),
                    b'D' => *told = first_column(body),
                    b'Z' if !std::mem::replace(is_ready, true) => tell(Heard::Ready),
                    b'Z' => tell(error.take().map_or(Heard::Accepted, Heard::Refused)),
                    _ => {}
                }
            }
            Ok(at)
        })
    }
}

fn put_length(out: &mut Vec<u8>, body: usize) {
    let length = i32::try_from(body + 4).expect("a statement is short");
    out.extend_from_slice(&length.to_be_bytes());
}

/// Kind and body of the message at the beginning; `None` when it is not complete.
fn message(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let length = usize::try_from(i32::from_be_bytes(*rest.first_chunk()?)).ok()?;
    Some((kind, rest.get(4..length)?))
}

/// What an error says: its fields begin with a letter and end with a zero; `M` is the message.
fn words(body: &[u8]) -> String {
    let message = body.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(b"M"));
    String::from_utf8_lossy(message.unwrap_or(b"an error without words")).into_owned()
}

/// The first column of a row, as text: after the number of columns, each has its length before it.
fn first_column(body: &[u8]) -> Option<String> {
    let length = usize::try_from(i32::from_be_bytes(*body.get(2..)?.first_chunk()?)).ok()?;
    String::from_utf8(body.get(6..6 + length)?.to_vec()).ok()
}

/// Carries out statements, one after the other; what the last row told first, if there was one.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses one.
pub(crate) fn execute(
    socket: &Path,
    login: &Login,
    statements: &[String],
) -> anyhow::Result<Option<String>> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    let mut sql = Sql::new(login.clone(), vec!["{payload}".to_owned()]);
    let mut out = Vec::new();
    sql.hello(&mut out);
    let mut statements = statements.iter();
    loop {
        stream.write_all(&out)?;
        out.clear();
        if let Heard::Refused(why) = next(&mut sql, &mut stream)? {
            bail!("PostgreSQL refuses: {why}");
        }
        let Some(statement) = statements.next() else { return Ok(sql.told) };
        sql.put(&mut out, "", statement);
    }
}

/// Reads until something was heard.
fn next(sql: &mut Sql, stream: &mut UnixStream) -> anyhow::Result<Heard> {
    let mut buffer = [0; 4096];
    let mut first = None;
    while first.is_none() {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            bail!("PostgreSQL closed the connection");
        }
        sql.hear(&buffer[..read], &mut Vec::new(), &mut |heard| {
            first.get_or_insert(heard);
        })
        .map_err(|Broken(why)| anyhow::anyhow!(why))?;
    }
    first.context("something was heard")
}
