#!/usr/bin/env bash
# Runs all tests written in Rust: with nextest where it is installed, which ends tests that hang
# and keeps the heavy ones apart, else with cargo's own runner.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --all-features --profile "${NEXTEST_PROFILE:-default}"
else
    echo "cargo-nextest is not installed; going on with cargo test, one test at a time"
    cargo test --workspace --all-features --lib --bins --tests -- --test-threads 1
fi
cargo test --workspace --all-features --doc
