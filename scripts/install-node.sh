#!/usr/bin/env bash
# Makes sure that there are Node and npm, for the tests with JavaScript clients.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

command -v node >/dev/null 2>&1 || need_packages "Node" nodejs
command -v npm >/dev/null 2>&1 || need_packages "npm" npm
