//! From the publisher to sockets that take everything; what is told is the cost of one delivery.

use tidewire_measure::Case;

use crate::crowd::{Crowd, draft};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Two ways through the relay: what has few listeners is handed over on the spot.
        fan_out("fan-out/to-1", 1, 1, 400),
        fan_out("fan-out/to-32", 32, 1, 100),
        fan_out("fan-out/to-1000", 1_000, 1, 20),
        // Messages that are published together leave in one write.
        fan_out("fan-out/8-messages-to-1000", 1_000, 8, 20),
        fan_out("fan-out/to-nobody", 0, 1, 400),
    ]
}

fn fan_out(name: &str, listeners: usize, messages: usize, rounds: u64) -> Case {
    let case = Case::looping(name, move || {
        let crowd = Crowd::listening(listeners);
        move |rounds| crowd.say(rounds, listeners as u64, || vec![draft(); messages])
    });
    case.operations((listeners.max(1) * messages) as u64).rounds(rounds)
}
