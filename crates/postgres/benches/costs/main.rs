//! What row changes cost from the write-ahead log to the publisher; what is told is the cost of one.

use tidewire_measure::Case;
use tidewire_postgres::wal::bench::Log;

/// Changes of a transaction, where it has more than one.
const MANY: usize = 100;

fn main() {
    tidewire_measure::run(&[
        Case::new("wal/1-insert", || {
            let mut log = Log::of_inserts(1);
            move || log.read()
        }),
        Case::new("wal/100-inserts", || {
            let mut log = Log::of_inserts(MANY);
            move || log.read()
        })
        .operations(MANY as u64)
        .rounds(40),
        Case::new("wal/100-updates-with-old-rows", || {
            let mut log = Log::of_updates(MANY);
            move || log.read()
        })
        .operations(MANY as u64)
        .rounds(40),
    ]);
}
