//! What waits for a client whose socket is full, and leaves when it is not; what is told is the
//! cost of one message.

use bytes::Bytes;
use tidewire_measure::Case;

use crate::crowd::{Crowd, PAYLOAD, draft};

/// Listeners that are handed over to without another task.
const LISTENERS: usize = 32;

/// Messages that wait for each; they leave in one write.
const MESSAGES: usize = 8;

/// Answers that wait; they leave in one write as well.
const ANSWERS: usize = 64;

pub(crate) fn cases() -> Vec<Case> {
    let waiting = Case::looping("mailbox/offer-to-full-socket-and-flush", || {
        let mut crowd = Crowd::listening(LISTENERS);
        move |rounds| (0..rounds).for_each(|_| wait_and_leave(&mut crowd))
    });
    let answers = Case::looping("mailbox/queue-and-flush", || {
        let mut crowd = Crowd::listening(1);
        let bytes = Bytes::from_static(PAYLOAD.as_bytes());
        move |rounds| {
            let session = &mut crowd.sessions[0];
            for _ in 0..rounds {
                (0..ANSWERS).for_each(|_| session.push_raw(bytes.clone()));
                assert!(session.flush().expect("the socket is whole"), "the socket takes all");
            }
        }
    });
    vec![
        waiting.operations((LISTENERS * MESSAGES) as u64).rounds(40),
        answers.operations(ANSWERS as u64),
    ]
}

fn wait_and_leave(crowd: &mut Crowd) {
    crowd.sockets.fill(true);
    crowd.say(MESSAGES as u64, 0, || vec![draft()]);
    crowd.sockets.fill(false);
    for session in &mut crowd.sessions {
        assert!(session.flush().expect("the socket is whole"), "the socket takes all");
    }
}
