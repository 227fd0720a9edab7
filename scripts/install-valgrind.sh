#!/usr/bin/env bash
# Makes sure that there are valgrind, whose callgrind counts instructions, and taskset.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

command -v valgrind >/dev/null 2>&1 || need_packages "valgrind" valgrind
command -v taskset >/dev/null 2>&1 || need_packages "taskset" util-linux
