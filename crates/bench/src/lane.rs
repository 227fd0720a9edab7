//! One publisher's connection, in whichever way it says things.
//!
//! A lane sends what it is given and tells what was answered; when to send is not its business.

mod http;
mod nats;
mod socket;
mod sql;
mod websocket;

use std::io::{self, Read as _, Write as _};

use anyhow::Context as _;
use mio::event::Event;

use self::http::Http;
use self::nats::Nats;
pub(crate) use self::socket::{Door, Socket};
pub(crate) use self::sql::{Login, Sql, execute};
use self::websocket::WebSocket;
use crate::inbound::Broken;
use crate::template::{Template, number_of};

/// The ways to say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// `POST` on connections that are kept.
    Http,
    /// Messages on a WebSocket.
    Websocket,
    /// `PUB` of NATS on TCP.
    Nats,
    /// `NOTIFY` in PostgreSQL.
    Notify,
    /// `INSERT` and `UPDATE`, of a table whose trigger notifies or whose changes are followed.
    Insert,
}

/// What a lane hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It may begin to send.
    Ready,
    /// The first unanswered publication was accepted.
    Accepted,
    /// The first unanswered publication was refused, with these words.
    Refused(String),
}

/// A language for publishing.
pub(crate) trait Speech {
    /// What is sent as soon as the connection stands.
    fn hello(&self, out: &mut Vec<u8>);

    /// Whether it may send before anything was heard.
    fn is_ready_at_once(&self) -> bool {
        false
    }

    /// Adds one publication.
    fn put(&mut self, out: &mut Vec<u8>, topic: &str, payload: &str);

    /// Whether each publication is answered.
    fn is_answered(&self) -> bool {
        true
    }

    /// Takes what was read, and adds to `out` what must be said at once.
    ///
    /// # Errors
    /// When the server does not speak the language, or does not want this client.
    fn hear(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Heard),
    ) -> Result<(), Broken>;
}

/// A publisher's connection.
pub(crate) struct Lane {
    socket: Socket,
    speech: Box<dyn Speech>,
    is_connected: bool,
    pub(crate) is_ready: bool,
    out: Vec<u8>,
    /// Why it cannot go on.
    pub(crate) broken: Option<String>,
}

impl Lane {
    /// Begins to connect.
    ///
    /// # Errors
    /// When the template has no such way, or no socket can be had.
    pub(crate) fn open(
        template: &Template,
        way: Way,
        door: &Door,
        host: &str,
        login: &Login,
    ) -> anyhow::Result<Self> {
        let missing = || format!("the template {} has no way {way:?} to publish", template.name);
        let publish = &template.publish;
        let speech: Box<dyn Speech> = match way {
            Way::Http => {
                Box::new(Http::new(publish.http.clone().with_context(missing)?, host.to_owned()))
            }
            Way::Websocket => Box::new(WebSocket::new(
                publish.websocket.clone().with_context(missing)?,
                host.to_owned(),
            )),
            Way::Nats => publish.nats.map(|_| Box::new(Nats::default())).with_context(missing)?,
            Way::Notify => {
                let sql = publish.sql.as_ref().with_context(missing)?;
                let notify = sql.notify.clone().with_context(missing)?;
                Box::new(Sql::new(login.clone(), vec![notify]))
            }
            Way::Insert => {
                let sql = publish.sql.as_ref().filter(|sql| !sql.insert.is_empty());
                Box::new(Sql::new(login.clone(), sql.with_context(missing)?.insert.clone()))
            }
        };
        let socket = Socket::connect(door).context("connecting a publisher")?;
        let out = Vec::new();
        Ok(Self { socket, speech, is_connected: false, is_ready: false, out, broken: None })
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.speech.is_answered()
    }

    /// Sends one publication, or keeps it until the socket takes it.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) {
        self.speech.put(&mut self.out, topic, payload);
        self.flush();
    }

    /// Acts on what the kernel says of the socket.
    pub(crate) fn woken(&mut self, event: &Event, buffer: &mut [u8], tell: &mut dyn FnMut(Heard)) {
        if !self.is_connected && event.is_writable() {
            self.connected();
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(buffer, tell);
        }
        self.flush();
    }

    fn connected(&mut self) {
        match self.socket.is_connected() {
            Ok(true) => {
                self.is_connected = true;
                self.is_ready = self.speech.is_ready_at_once();
                self.speech.hello(&mut self.out);
            }
            Ok(false) => {}
            Err(error) => self.broken = Some(error.to_string()),
        }
    }

    fn read(&mut self, buffer: &mut [u8], tell: &mut dyn FnMut(Heard)) {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => self.broken = Some("the server closed the connection".to_owned()),
                Ok(read) => {
                    let ready = &mut self.is_ready;
                    let heard = self.speech.hear(&buffer[..read], &mut self.out, &mut |heard| {
                        *ready |= heard == Heard::Ready;
                        tell(heard);
                    });
                    if let Err(Broken(why)) = heard {
                        self.broken = Some(why.to_owned());
                    }
                    if read < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broken = Some(error.to_string()),
            }
            if self.broken.is_some() {
                return;
            }
        }
    }

    fn flush(&mut self) {
        while self.is_connected && !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken = Some(error.to_string());
                    return;
                }
            }
        }
    }
}

/// Puts topic and payload into a text.
fn filled(text: &str, topic: &str, payload: &str) -> String {
    let text = text.replace("{topic}", topic).replace("{payload}", payload);
    text.replace("{number}", number_of(topic))
}

#[cfg(test)]
mod tests;
