#!/usr/bin/env bash
# Measures Tidewire with two programs that share nothing, in turns: tidewire-bench and
# second-generator.py. Their medians must agree within a tenth.
#
#   RUNS=5 SECONDS_EACH=8   rounds, and seconds to measure each scenario in each
#
# The rates are such that a program in Python is never behind, which would have the server join
# messages. What both found goes to target/bench/agreement-*.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench-build.sh

out=target/bench
first=$out/agreement-first.jsonl second=$out/agreement-second.jsonl
seconds=${SECONDS_EACH:-8}
mkdir -p "$out"
rm -f "$first" "$second"

first() {
    bench run "$@" --seconds "$seconds" --json "$first" >"$out/agreement.log" 2>&1 ||
        { cat "$out/agreement.log" >&2; exit 1; }
}
second() {
    scripts/second-generator.py "$@" --seconds "$seconds" --json "$second"
}

for round in $(seq "${RUNS:-5}"); do
    echo "round $round"
    first paced --subscribers 500
    second paced --subscribers 500 --rate 20
    first 10k-topics --subscribers 2000 --rate 1000
    second topics --subscribers 2000 --rate 1000 --publishers 8
    first idle-10k
    second idle --subscribers 10000
done
scripts/second-generator.py agree "$first" "$second"
