#!/usr/bin/env bash
# Makes sure that there are cargo-nextest, which runs the tests, and cargo-deny, which checks the
# libraries. Prints the directory to put before PATH, or nothing where both are installed. They are
# downloaded ready for use, since building them takes longer than building Tidewire, into
# .tidewire/rust-tools; nothing is installed in the system. Ends with 3 where they cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

wanted=scripts/rust-tools.txt
place=$PWD/.tidewire/rust-tools

if cargo nextest --version >/dev/null 2>&1 && cargo deny --version >/dev/null 2>&1; then
    exit 0
fi
if ! cmp -s "$wanted" "$place/installed"; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        need_packages "Python with venv" python3 python3-venv >&2 || exit 3
    rm -rf "$place"
    python3 -m venv "$place" >&2 || exit 3
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes --requirement "$wanted" >&2 || exit 3
    # A directory with these two alone: this Python is not to be anybody else's.
    mkdir "$place/cargo"
    ln -s ../bin/cargo-nextest ../bin/cargo-deny "$place/cargo/"
    cp "$wanted" "$place/installed"
fi
echo "$place/cargo"
