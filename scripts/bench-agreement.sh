#!/usr/bin/env bash
# Measures Tidewire with two programs that share nothing, in turns: tidewire-bench and
# second-generator.py. Ends with 1 where the medians are further apart than a tenth.
#
#   RUNS=5 SECONDS_EACH=5   rounds, 5 at least, and seconds to measure each scenario in each
#
# Who goes first changes from round to round. What both found goes to
# target/bench/agreement-*.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench-build.sh

out=target/bench
first=$out/agreement-first.jsonl second=$out/agreement-second.jsonl
rounds=${RUNS:-5} seconds=${SECONDS_EACH:-5}
mkdir -p "$out"
rm -f "$first" "$second"

# What both programs are started with.
on=

# shellcheck disable=SC2086 # words of it are arguments
first() {
    $on target/release/tidewire-bench run $1 --json "$first" >"$out/agreement.log" 2>&1 ||
        { cat "$out/agreement.log" >&2; exit 1; }
}
# shellcheck disable=SC2086
second() {
    $on scripts/second-generator.py $1 --json "$second"
}
both() {
    if ((round % 2)); then
        first "$1"
        second "$2"
    else
        second "$2"
        first "$1"
    fi
}

# Two of most in each round, because they move with whatever else runs.
for round in $(seq "$rounds"); do
    echo "round $round"
    for _ in 1 2; do
        both "paced --seconds $seconds" "paced --subscribers 1000 --rate 20 --seconds $seconds"
        both "idle-10k --seconds 1" "idle --subscribers 10000"
    done
    # Where the server sleeps between messages, on one processor: the kernel then has no choice
    # where to wake whom, which alone can double what one program finds.
    on="taskset --cpu-list 0"
    for _ in 1 2; do
        both "10k-topics --subscribers 2000 --rate 1000 --seconds $seconds" \
            "topics --subscribers 2000 --rate 1000 --publishers 8 --seconds $seconds"
    done
    both "one-by-one" "one-by-one --subscribers 2000"
    on=
done
scripts/second-generator.py agree "$first" "$second"
