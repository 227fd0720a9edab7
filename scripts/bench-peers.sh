#!/usr/bin/env bash
# Measures Tidewire and its peers, in turns: each round runs every scenario with every system, so
# that what else the machine does falls on all alike.
#
#   RUNS=3 SECONDS_EACH=5   rounds, and seconds to measure each scenario with each system
#   SCENARIOS="paced sse"   only these
#   SYSTEMS=tidewire,nats   only these, of tidewire, nchan, ws, socket-io, nats
#   RECORD=1                write the tables into docs/performance.md
#
# Reports go to target/bench/peers.jsonl, one line of JSON for each run.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-bench-peers.sh
. scripts/bench-build.sh

out=target/bench
mkdir -p "$out"
rm -f "$out/peers.jsonl"

scenarios=${SCENARIOS:-paced open200 1-in-flight 8-in-flight 10k-subs 10k-topics sse idle-10k idle-18k connect-storm one-stalled-reader}
# shellcheck disable=SC2086 # words of it are scenarios
bench run $scenarios --system "${SYSTEMS:-tidewire,nchan,ws,socket-io,nats}" --runs "${RUNS:-3}" \
    --seconds "${SECONDS_EACH:-5}" --json "$out/peers.jsonl"
bench table "$out/peers.jsonl"

if [ -n "${RECORD:-}" ]; then
    bench table "$out/peers.jsonl" --into docs/performance.md --mark peers
fi
