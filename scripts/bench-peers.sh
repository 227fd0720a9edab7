#!/usr/bin/env bash
# Measures Tidewire and its peers, in turns: each round runs every scenario with every system, so
# that what else the machine does falls on all alike.
#
#   RUNS=3 SECONDS_EACH=5   rounds, and seconds to measure each scenario with each system
#   QUICK=1                 one round of two seconds each
#   SCENARIOS="paced sse"   only these
#   SYSTEMS=tidewire,nats   only these, of tidewire, nchan, ws, socket-io, nats
#   RECORD=1                write the tables into docs/performance.md
#   BUILT=1                 do not build, take what is there
#
# Reports go to target/bench/peers.jsonl, one line of JSON for each run. A peer that is not there or
# fails is told at the end and takes nothing from the others.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-bench-peers.sh || echo "warning: not all peers could be installed" >&2
. scripts/bench-build.sh

out=target/bench
mkdir -p "$out"
rm -f "$out/peers.jsonl"
failed=0

scenarios=${SCENARIOS:-paced open200 1-in-flight 8-in-flight 10k-subs 10k-topics sse idle-10k idle-18k connect-storm one-by-one one-stalled-reader}
# shellcheck disable=SC2086 # words of it are scenarios
bench run $scenarios --system "${SYSTEMS:-tidewire,nchan,ws,socket-io,nats}" --runs "$runs" \
    --seconds "$seconds" --json "$out/peers.jsonl" || failed=1
bench table "$out/peers.jsonl"

if [ -n "${RECORD:-}" ]; then
    bench table "$out/peers.jsonl" --into docs/performance.md --mark peers
fi
exit "$failed"
