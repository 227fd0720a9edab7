//! What the wire costs: frames written, requests read, filters judged.

mod decode;
mod encode;
mod filter;
mod orders;

fn main() {
    let mut cases = encode::cases();
    cases.extend(decode::cases());
    cases.extend(filter::cases());
    tidewire_measure::run(&cases);
}
