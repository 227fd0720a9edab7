#!/usr/bin/env bash
# Makes sure that there is a Chromium, for the tests in a browser. Prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

find_browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name"; then
            return 0
        fi
    done
    return 1
}

if ! find_browser; then
    need_packages "Chromium" chromium >&2
    find_browser
fi
