#!/usr/bin/env bash
# Runs the tests with clients that are not ours: Python's websockets, and Chromium. They speak to
# the program that was built last; clients/run starts and ends it.
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
cargo build --quiet --package tidewire-server
TIDEWIRE="${CARGO_TARGET_DIR:-$PWD/target}/debug/tidewire"
export TIDEWIRE
exec clients/run "$@"
