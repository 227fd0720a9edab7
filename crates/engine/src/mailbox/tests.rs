use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;

/// A socket that takes at most so many bytes at a time until it is told to take more.
#[derive(Clone, Default)]
struct Pipe(Arc<(AtomicUsize, Mutex<Vec<u8>>)>);

impl Pipe {
    fn allow(&self, bytes: usize) {
        self.0.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn written(&self) -> Vec<u8> {
        self.0.1.lock().clone()
    }
}

impl Outlet for Pipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.0.load(Ordering::Relaxed).min(bytes.len());
        self.0.0.fetch_sub(room, Ordering::Relaxed);
        self.0.1.lock().extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let joined: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
        self.try_write(&joined)
    }
}

fn message(byte: u8, length: usize) -> Outgoing {
    Outgoing { bytes: vec![byte; length].into(), mark: None }
}

proptest! {
    #[test]
    fn what_is_taken_is_written_once_and_in_order(
        actions in prop::collection::vec((0u8..3, 1usize..40), 1..200),
    ) {
        let pipe = Pipe::default();
        let mailbox = Mailbox::new(Wire::WebSocket, Some(Box::new(pipe.clone())), 0);
        let mut expected = Vec::new();
        for (index, (action, size)) in actions.into_iter().enumerate() {
            match action {
                0 => {
                    let taken = mailbox.offer(message(index as u8, size), 100);
                    if taken == Offer::Taken {
                        expected.extend(vec![index as u8; size]);
                    }
                }
                1 => pipe.allow(size),
                _ => { mailbox.flush().unwrap(); }
            }
        }
        pipe.allow(1 << 20);
        prop_assert!(mailbox.flush().unwrap());
        prop_assert_eq!(pipe.written(), expected);
    }
}

#[test]
fn an_offer_beyond_the_limit_is_turned_down() {
    let mailbox = Mailbox::new(Wire::WebSocket, None, 0);
    assert_eq!(mailbox.offer(message(1, 60), 100), Offer::Taken);
    assert_eq!(mailbox.offer(message(2, 60), 100), Offer::Full);
    assert_eq!(mailbox.take().len(), 1);
    assert_eq!(mailbox.offer(message(3, 60), 100), Offer::Taken);
}

#[test]
fn a_single_message_larger_than_the_limit_still_passes() {
    let mailbox = Mailbox::new(Wire::WebSocket, None, 0);
    assert_eq!(mailbox.offer(message(1, 500), 100), Offer::Taken);
}

#[test]
fn a_client_that_asks_and_does_not_read_ends() {
    let mailbox = Mailbox::new(Wire::WebSocket, None, 0);
    mailbox.queue(message(1, 150), 100);
    assert_eq!(mailbox.closing(), None, "one answer may be larger than all that may wait");
    mailbox.queue(message(1, 10), 100);
    assert_eq!(mailbox.closing(), Some(Close::SlowConsumer));
}

#[test]
fn pages_from_history_that_wait_are_no_reason_to_end() {
    let mailbox = Mailbox::new(Wire::WebSocket, None, 0);
    let _ = mailbox.offer(message(1, 500), usize::MAX);
    for _ in 0..3 {
        mailbox.queue(message(2, 20), 100);
    }
    assert_eq!(mailbox.closing(), None);
    assert_eq!(mailbox.take().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_slow_after_the_write_timeout() {
    let limits = Limits::default();
    let mailbox = Mailbox::new(Wire::WebSocket, Some(Box::new(Pipe::default())), 0);
    let _ = mailbox.offer(message(1, 10), 100);
    mailbox.tick(&limits, 0, 0);
    assert_eq!(mailbox.closing(), None);
    tokio::time::advance(limits.write_timeout).await;
    mailbox.tick(&limits, 0, 0);
    assert_eq!(mailbox.closing(), Some(Close::SlowConsumer));
}

#[test]
fn a_silent_websocket_is_pinged_and_then_ended() {
    let limits = Limits::default();
    let mailbox = Mailbox::new(Wire::WebSocket, None, 0);
    mailbox.tick(&limits, 25, 0);
    assert_eq!(mailbox.take()[0].bytes, WEBSOCKET_PING);
    mailbox.tick(&limits, 60, 0);
    assert_eq!(mailbox.closing(), Some(Close::Idle));
}

#[test]
fn a_token_that_runs_out_ends_the_session() {
    let mailbox = Mailbox::new(Wire::EventStream, None, 0);
    mailbox.expire_at(Some(100));
    mailbox.tick(&Limits::default(), 1, 99);
    assert_eq!(mailbox.closing(), None);
    mailbox.tick(&Limits::default(), 1, 100);
    assert_eq!(mailbox.closing(), Some(Close::TokenExpired));
}

#[test]
fn slow_clients_together_hold_no_more_than_is_allowed_and_the_slowest_fall_back_first() {
    let totals = Totals::new(10_000);
    let mailbox = || Mailbox::among(totals.clone(), Wire::WebSocket, None, 0);
    let offer = |mailbox: &Mailbox, bytes: usize| {
        let bytes = Bytes::from(vec![0; bytes]);
        mailbox.offer(Outgoing { bytes, mark: None }, 5_000)
    };
    let slow: Vec<_> = (0..100).map(|_| mailbox()).collect();
    for _ in 0..100 {
        for one in &slow {
            let _ = offer(one, 100);
        }
    }
    // A first frame is always taken of who has no socket to write into.
    assert!(totals.bytes() <= 20_000, "{}", totals.bytes());
    drop(slow);
    assert_eq!(totals.bytes(), 0);

    let (slowest, other) = (mailbox(), mailbox());
    while offer(&slowest, 100) == Offer::Taken {}
    assert!((1_000..2_000).contains(&totals.bytes()), "{}", totals.bytes());
    assert!(!slowest.has_room(5_000) && other.has_room(5_000));
    assert_eq!(offer(&other, 100), Offer::Taken);
    assert_eq!(offer(&other, 100), Offer::Taken);
    slowest.take();
    assert_eq!(totals.bytes(), 200);
}
