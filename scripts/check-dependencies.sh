#!/usr/bin/env bash
# Checks the libraries in use against deny.toml: licences, sources, and which crate may use which
# library; and against the database of security advisories, where that can be reached.
#
# Advisories that are found fail the check. A database that cannot be reached does not, and is said.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-build.sh
if tools=$(scripts/install-rust-tools.sh); then
    PATH=${tools:+$tools:}$PATH
elif ! cargo deny --version >/dev/null 2>&1; then
    echo "error: cargo-deny could not be installed, so libraries were not checked" >&2
    exit 1
fi

# Duplicates and wrappers that are not in use are seen by `cargo deny check`; here they are noise.
quietly=(--log-level error)
cargo deny "${quietly[@]}" check --hide-inclusion-graph bans licenses sources
if cargo deny "${quietly[@]}" fetch db >/dev/null 2>&1; then
    cargo deny "${quietly[@]}" check --disable-fetch advisories
else
    echo "skipped: the database of advisories cannot be reached, so advisories were not checked"
fi
