#!/usr/bin/env bash
# Builds the npm packages and tests them against the program that was built last: types, size, packaging, then the
# tests, those of the hooks in Chromium.
#
#   TIDEWIRE   the program to test; target/debug/tidewire, built where it is not named
#   CHROMIUM   the browser; installed where it is not named
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-node.sh
CHROMIUM=${CHROMIUM:-$(scripts/install-chromium.sh)}
if [ -z "${TIDEWIRE:-}" ]; then
    cargo build --quiet --package tidewire-server
    TIDEWIRE="${CARGO_TARGET_DIR:-$PWD/target}/debug/tidewire"
fi
export CHROMIUM TIDEWIRE

# The hooks use the client's build, so it comes first.
for package in client react; do
    echo "== @tidewire/$package"
    cd "packages/$package"
    if ! cmp -s package-lock.json node_modules/installed; then
        npm ci --silent --ignore-scripts --no-audit --no-fund
        cp package-lock.json node_modules/installed
    fi
    npm run --silent build
    # The checks of the packaging need a newer Node than some distributions have; the packages do not.
    if node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)'; then
        npm run --silent check-package >/dev/null
    else
        echo "skipped: this Node is older than 20, so the packaging was not checked"
    fi
    # A suite that hangs is ended; each takes under a minute.
    timeout --kill-after=15 300 npm run --silent test
    cd ../..
done
