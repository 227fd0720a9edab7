#!/usr/bin/env bash
# Measures Tidewire: every scenario, then latency and cost against the number of subscribers.
#
#   RUNS=3 SECONDS_EACH=5   rounds, and seconds to measure each scenario in each
#   QUICK=1                 one round of two seconds each
#   SCENARIOS="paced sse"   only these
#   RECORD=1                write tables and drawing into docs/
#   BUILT=1                 do not build, take what is there
#
# Reports go to target/bench/*.jsonl, one line of JSON for each run. A run that fails is told at the
# end and takes nothing from the others.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench-build.sh

out=target/bench
mkdir -p "$out"
rm -f "$out/own.jsonl" "$out/subscribers.jsonl" "$out/subscribers.svg"
failed=0

# shellcheck disable=SC2086 # words of it are scenarios
bench run ${SCENARIOS:-} --runs "$runs" --seconds "$seconds" --json "$out/own.jsonl" || failed=1
bench table "$out/own.jsonl"

if [ -z "${SCENARIOS:-}" ]; then
    bench run paced --subscribers 10,30,100,300,1000,3000,10000 --runs "$runs" \
        --seconds "$seconds" --json "$out/subscribers.jsonl" || failed=1
    bench plot "$out/subscribers.jsonl" --out "$out/subscribers.svg"
fi

if [ -n "${RECORD:-}" ]; then
    bench table "$out/own.jsonl" --into docs/performance.md --mark own
    if [ -e "$out/subscribers.svg" ]; then cp "$out/subscribers.svg" docs/performance-subscribers.svg; fi
fi
exit "$failed"
