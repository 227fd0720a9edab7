//! Cases by the clock.

use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, Throughput};

use crate::Case;

/// Criterion's five seconds are for quieter machines and fewer cases: differences that two do not
/// show are better looked for in instructions.
const MEASURED: Duration = Duration::from_secs(2);

pub(crate) fn all(cases: &[Case]) {
    let criterion = Criterion::default().warm_up_time(MEASURED / 2).measurement_time(MEASURED);
    let mut criterion = criterion.configure_from_args();
    for case in cases {
        one(&mut criterion, case);
    }
    criterion.final_summary();
}

fn one(criterion: &mut Criterion, case: &Case) {
    let (group, rest) = case.name.split_once('/').unwrap_or((&case.name, "all"));
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(case.operations));
    group.bench_function(rest, |bencher| {
        let mut run = (case.prepare)();
        bencher.iter_custom(|rounds| {
            let begun = WallTime.start();
            run(rounds);
            WallTime.end(begun)
        });
    });
    group.finish();
}
