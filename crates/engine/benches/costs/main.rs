//! What the engine costs: remembering, handing over, finding who wants a change.

mod crowd;
mod fan_out;
mod history;
mod index;
mod mailbox;
mod session;

fn main() {
    let mut cases = history::cases();
    cases.extend(fan_out::cases());
    cases.extend(mailbox::cases());
    cases.extend(index::cases());
    cases.extend(session::cases());
    tidewire_measure::run(&cases);
}
