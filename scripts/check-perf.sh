#!/usr/bin/env bash
# Counts the instructions of the micro-benchmarks and holds them against crates/measure/budget.txt.
#
#   ONLY=word           only what has this in its name
#   UPDATE_BUDGET=1     what is counted becomes the budget, and the table in docs/performance.md
#
# Ends with 1 when something is over its budget, or the budget is not of these benchmarks.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-build.sh
scripts/install-valgrind.sh
exec cargo run --quiet --package tidewire-measure -- ${ONLY:+"$ONLY"}
