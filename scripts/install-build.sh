#!/usr/bin/env bash
# Makes sure that there is what building needs: Rust, and a C compiler for linking and for the
# cryptography library.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

if ! command -v cargo >/dev/null 2>&1; then
    echo "error: cargo is missing: install Rust with rustup, then open a new shell" >&2
    exit 1
fi
if ! command -v cc >/dev/null 2>&1; then
    need_packages "a C compiler" gcc libc6-dev
fi
