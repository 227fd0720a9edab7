#!/usr/bin/env bash
# Runs all tests written in Rust with nextest, which runs independent ones side by side, ends those
# that hang and keeps the heavy ones apart; with cargo's own runner where nextest cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests know the files of the checkout by the path at which they were compiled, and cargo does not
# notice that a checkout was moved: then our own crates are built again.
target=${CARGO_TARGET_DIR:-$PWD/target}
if [ -d "$target/debug/deps" ] && [ "$(cat "$target/checkout" 2>/dev/null)" != "$PWD" ]; then
    find crates -name '*.rs' -exec touch {} +
fi
mkdir -p "$target"
echo "$PWD" >"$target/checkout"

# A newer PostgreSQL beside the one of the distribution, for the tests that compare versions.
# Where there can be none they are skipped, and say so; where there should be one, CI insists.
if place=$(scripts/install-postgres-next.sh); then
    export TIDEWIRE_POSTGRES_NEXT=$place
    echo "row changes are tested with $("$place/postgres" --version) too"
elif [ $? -eq 3 ] || [ -z "${CI:-}" ]; then
    echo "skipped: no newer PostgreSQL, so tests that compare versions do not run"
else
    echo "error: a newer PostgreSQL could not be had, and CI must not skip its tests" >&2
    exit 1
fi

# A pooler to put before PostgreSQL, for the tests that see it found out.
if place=$(scripts/install-pgbouncer.sh); then
    export TIDEWIRE_PGBOUNCER=$place
elif [ -z "${CI:-}" ]; then
    echo "skipped: no PgBouncer, so tests with a pooler do not run"
else
    echo "error: PgBouncer could not be had, and CI must not skip its tests" >&2
    exit 1
fi

if tools=$(scripts/install-rust-tools.sh); then
    PATH=${tools:+$tools:}$PATH
fi
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --all-features --profile "${NEXTEST_PROFILE:-default}"
else
    echo "cargo-nextest could not be had; going on with cargo test, one test at a time, which is slow"
    cargo test --workspace --all-features --lib --bins --tests -- --test-threads 1
fi
cargo test --workspace --all-features --doc
