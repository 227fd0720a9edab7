//! The history in memory; what is told is the cost of one event.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tidewire::history::{MemoryHistory, MemorySettings};
use tidewire::{Draft, History};
use tidewire_measure::Case;

use crate::crowd::{draft, keeping, topic};

/// Events in a page that is read.
const PAGE: usize = 100;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        append("history/append/1", 1, 1_000),
        append("history/append/100", 100, 20),
        Case::new("history/read/page-of-100", || {
            let history = filled();
            let topic = topic();
            let after = now(history.earliest(&topic)).expect("memory");
            move || now(history.read(&topic, after, PAGE)).expect("memory")
        })
        .operations(PAGE as u64),
        Case::new("history/read-back/page-of-100", || {
            let history = filled();
            let topic = topic();
            move || now(history.read_back(&topic, None, PAGE)).expect("memory")
        })
        .operations(PAGE as u64),
        Case::new("history/read/nothing-new", || {
            let history = filled();
            let topic = topic();
            let head = now(history.head(&topic)).expect("memory");
            move || now(history.read(&topic, head, PAGE)).expect("memory")
        }),
    ]
}

fn append(name: &str, count: usize, rounds: u64) -> Case {
    let case = Case::new(name, move || {
        let history = filled();
        let drafts: Vec<Draft> = vec![draft(); count];
        move || now(history.append(drafts.clone()))
    });
    case.operations(count as u64).rounds(rounds)
}

/// A history with a full topic, which lets go of an event for each new one.
fn filled() -> MemoryHistory {
    let history = MemoryHistory::new(MemorySettings::default(), keeping(2 * PAGE));
    now(history.append(vec![draft(); 3 * PAGE]));
    history
}

/// What a future gives that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("memory is at hand"),
    }
}
