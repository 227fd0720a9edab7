//! One subscriber: from connecting to receiving.

use std::io::{self, Read as _, Write as _};

use mio::event::Event;
use mio::net::TcpStream;

use crate::clock;
use crate::inbound::{Broken, Inbound, Piece, frames};
use crate::stamp::Stamps;
use crate::tally::Tally;
use crate::template::{Step, Template, Way, number_of};

/// Bytes read at once: some hundred events that were joined into one write.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// A subscriber's connection.
pub(crate) struct Client {
    stream: Option<TcpStream>,
    pub(crate) phase: Phase,
    inbound: Inbound,
    /// Which template it speaks by.
    pub(crate) template: usize,
    pub(crate) topic: u32,
    /// Whether it stands still: it reads nothing.
    pub(crate) is_stalled: bool,
    /// When it began to connect.
    pub(crate) since: u64,
}

/// How far a subscriber is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The kernel connects.
    Connecting,
    /// The request is sent.
    Asked,
    /// Connected, but told not to subscribe yet.
    Held,
    /// At this step of the dialogue.
    Talking(usize),
    /// Subscribed.
    Ready,
    /// Closed by us.
    Left,
    /// Closed by the server, or broken.
    Lost,
}

/// What all subscribers share while they handle what came.
pub(crate) struct Surroundings<'a> {
    pub(crate) tally: &'a mut Tally,
    pub(crate) stamps: &'a Stamps,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) template: &'a Template,
    /// How they come to their topic: the template's way, or its way back.
    pub(crate) way: &'a Way,
    pub(crate) host: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) position: &'a mut String,
    /// Whether to note the positions that are told.
    pub(crate) note_position: bool,
    /// Whether to stop before subscribing.
    pub(crate) hold: bool,
    /// What went wrong first, for people.
    pub(crate) complaint: &'a mut Option<String>,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, template: usize, topic: u32) -> Self {
        let phase = Phase::Connecting;
        let inbound = Inbound::default();
        let since = clock::now();
        Self { stream: Some(stream), phase, inbound, template, topic, is_stalled: false, since }
    }

    pub(crate) fn stream(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut()
    }

    /// Closes the connection.
    pub(crate) fn leave(&mut self) {
        self.stream = None;
        self.phase = Phase::Left;
        self.inbound = Inbound::default();
    }

    /// Acts on what the kernel says of the socket.
    pub(crate) fn woken(&mut self, number: usize, event: &Event, around: &mut Surroundings<'_>) {
        if self.phase == Phase::Connecting && (event.is_writable() || event.is_error()) {
            self.connected(around);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(number, event.is_read_closed() || event.is_error(), around);
        }
    }

    fn connected(&mut self, around: &mut Surroundings<'_>) {
        let Some(stream) = &self.stream else { return };
        match stream.take_error() {
            Ok(None) if stream.peer_addr().is_ok() => {}
            Ok(None) => return,
            Ok(Some(error)) | Err(error) => return self.lost(&error.to_string(), around),
        }
        let _ = stream.set_nodelay(true);
        let request =
            around.template.request(around.way, around.host, around.topic, around.position);
        self.phase = Phase::Asked;
        self.write(request.as_bytes(), around);
    }

    /// Goes on from [`Phase::Held`].
    pub(crate) fn release(&mut self, around: &mut Surroundings<'_>) {
        if self.phase == Phase::Held {
            let mut out = Vec::new();
            self.phase = Phase::Talking(0);
            talk(&mut self.phase, around, &mut out);
            self.write(&out, around);
        }
    }

    /// Reads what there is. A read that does not fill the buffer has emptied the socket, so it is
    /// not asked again unless the end of the stream was announced.
    pub(crate) fn read(&mut self, number: usize, to_the_end: bool, around: &mut Surroundings<'_>) {
        while !self.is_stalled {
            let Some(stream) = &mut self.stream else { return };
            match stream.read(around.buffer) {
                Ok(0) => return self.lost("the server closed the connection", around),
                Ok(read) => {
                    let full = read == around.buffer.len();
                    self.hear(number, read, around);
                    if !full && !to_the_end {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lost(&error.to_string(), around),
            }
        }
    }

    fn hear(&mut self, number: usize, read: usize, around: &mut Surroundings<'_>) {
        let now = clock::now();
        let mut out = Vec::new();
        let mut ended = None;
        let framing = around.template.subscribe.framing;
        let phase = &mut self.phase;
        let buffer = std::mem::take(&mut around.buffer);
        let fed = self.inbound.feed(framing, &buffer[..read], |piece| match piece {
            Piece::Message(message) => heard(number, message, now, phase, around, &mut out),
            Piece::Status(status) if status == around.template.status() => {
                *phase = if around.hold { Phase::Held } else { Phase::Talking(0) };
                talk(phase, around, &mut out);
            }
            Piece::Status(status) => ended = Some(format!("the answer was {status}")),
            Piece::Ping(payload) => frames::put_pong(&mut out, payload),
            Piece::Close(code) => ended = Some(format!("closed by the server with {code:?}")),
        });
        around.buffer = buffer;
        if !out.is_empty() {
            self.write(&out, around);
        }
        if let Err(Broken(why)) = fed {
            self.lost(why, around);
        } else if let Some(why) = ended {
            self.lost(&why, around);
        }
    }

    /// What a client sends is little, and a socket that does not take it is broken.
    fn write(&mut self, bytes: &[u8], around: &mut Surroundings<'_>) {
        let Some(stream) = &mut self.stream else { return };
        match stream.write(bytes) {
            Ok(written) if written == bytes.len() => {}
            Ok(_) => self.lost("the socket takes no more", around),
            Err(error) => self.lost(&error.to_string(), around),
        }
    }

    fn lost(&mut self, why: &str, around: &mut Surroundings<'_>) {
        if self.stream.take().is_some() {
            around.tally.count.disconnects += 1;
            around.complaint.get_or_insert_with(|| why.to_owned());
        }
        self.phase = Phase::Lost;
        self.inbound = Inbound::default();
    }
}

fn heard(
    number: usize,
    message: &[u8],
    now: u64,
    phase: &mut Phase,
    around: &mut Surroundings<'_>,
    out: &mut Vec<u8>,
) {
    let template = around.template;
    if around.note_position
        && let Some(position) = template.position(message)
    {
        position.clone_into(around.position);
    }
    if let Some(stamp) = around.stamps.find(message) {
        return around.tally.delivered(number, stamp, now);
    }
    let has = |part: &Option<String>| part.as_ref().is_some_and(|part| contains(message, part));
    if let Some((_, answer)) =
        template.subscribe.heartbeat.as_ref().filter(|(beat, _)| message == beat.as_bytes())
    {
        frames::put(out, template.subscribe.binary, answer.as_bytes());
    } else if has(&template.subscribe.gap) {
        around.tally.count.gaps += 1;
    } else if has(&template.subscribe.refusal) {
        around.tally.count.complaints += 1;
        let said = || String::from_utf8_lossy(message).into_owned();
        around.complaint.get_or_insert_with(said);
    } else if let Phase::Talking(step) = *phase
        && let Some(Step::Expect(part)) = around.way.dialogue.get(step)
        && contains(message, part)
    {
        *phase = Phase::Talking(step + 1);
        talk(phase, around, out);
    }
}

/// Says what is to be said until something is expected, or there is nothing left.
fn talk(phase: &mut Phase, around: &Surroundings<'_>, out: &mut Vec<u8>) {
    while let Phase::Talking(step) = *phase {
        match around.way.dialogue.get(step) {
            Some(Step::Send(text)) => {
                let text = text.replace("{topic}", around.topic);
                let text = text.replace("{number}", number_of(around.topic));
                let text = text.replace("{position}", around.position);
                frames::put(out, around.template.subscribe.binary, text.as_bytes());
                *phase = Phase::Talking(step + 1);
            }
            Some(Step::Expect(_)) => return,
            None => *phase = Phase::Ready,
        }
    }
}

fn contains(message: &[u8], part: &str) -> bool {
    memchr::memmem::find(message, part.as_bytes()).is_some()
}
