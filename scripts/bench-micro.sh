#!/usr/bin/env bash
# Measures the micro-benchmarks by the clock, and compares with the run before, which is kept in
# target/criterion.
#
#   ONLY=word   only what has this in its name
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-build.sh
exec cargo bench --workspace --features tidewire-postgres/bench --bench costs -- ${ONLY:+"$ONLY"}
