//! One case for callgrind to count.

use std::hint::black_box;

use crate::{Case, Rounds};

/// Tells each case, and how many operations are counted of it.
pub(crate) fn list(cases: &[Case]) {
    for case in cases {
        println!("{} {}", case.name, case.rounds * case.operations);
    }
}

/// Does one case, of which only [`counted_by_callgrind`] is counted.
pub(crate) fn one(cases: &[Case], name: &str) {
    let case = cases.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("there is no case {name:?}"));
    let mut run = (case.prepare)();
    // What is filled or learnt the first time is not what later rounds cost.
    run(case.rounds / 4 + 1);
    counted_by_callgrind(&mut run, case.rounds);
}

/// Callgrind counts from when this is entered until it is left; it is found by its name.
#[inline(never)]
fn counted_by_callgrind(run: &mut Rounds, rounds: u64) {
    run(rounds);
    // Something to do afterwards, or it would be left before `run` is entered.
    black_box(());
}
