#!/usr/bin/env bash
# Makes sure that there is a Python with what the client tests import, in a virtual environment
# at .venv. Prints the path of its interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

wanted=clients/requirements.txt
stamp=.venv/installed

# A Python without venv has no ensurepip either; Debian packs the two apart.
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    need_packages "Python with venv" python3 python3-venv >&2

# Made afresh when what is wanted has changed, or was not finished.
if ! cmp -s "$wanted" "$stamp"; then
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$wanted" >&2
    cp "$wanted" "$stamp"
fi
echo "$PWD/.venv/bin/python"
