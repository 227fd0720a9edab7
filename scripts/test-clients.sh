#!/usr/bin/env bash
# Runs the tests with clients that are not ours: Python's websockets, Chromium, generated ones, and a
# tester that is driven by the API's description; and with nginx, HAProxy and Caddy between. They speak
# to the program that was built last; clients/run starts and ends it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x clients/run ]; then
    echo "no clients/run: the tests with outside clients are not there"
    exit 0
fi
if [ -f clients/requirements.txt ]; then
    PYTHON=$(scripts/install-python.sh)
    export PYTHON
fi
scripts/install-node.sh
CHROMIUM=$(scripts/install-chromium.sh)
export CHROMIUM
if PROXIES=$(scripts/install-proxies.sh); then
    export PROXIES
elif [ -z "${CI:-}" ]; then
    export PROXIES=none
    echo "skipped: no nginx, HAProxy and Caddy, so the settings of docs/operating.md are not tested"
else
    echo "error: nginx, HAProxy and Caddy could not be had, and CI must not skip their tests" >&2
    exit 1
fi
cargo build --quiet --package tidewire-server
TIDEWIRE="${CARGO_TARGET_DIR:-$PWD/target}/debug/tidewire"
export TIDEWIRE
exec clients/run "$@"
