#!/usr/bin/env bash
# Makes sure that there are PostgreSQL server binaries. No cluster is made and no service started:
# Tidewire starts private ones where it needs them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

# The same places where the server looks.
has_binaries() {
    local bin
    for bin in "$(dirname "$(command -v postgres || echo /none/postgres)")" \
        "$(pg_config --bindir 2>/dev/null || echo /none)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        if [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ]; then
            return 0
        fi
    done
    return 1
}

# Debian makes and starts a cluster with the package unless this file says no. It is put back
# afterwards, so that PostgreSQL installed for another purpose later is as usual.
settings=/etc/postgresql-common/createcluster.conf
saved=""

put_back() {
    if [ -n "$saved" ]; then
        as_root cp "$saved" "$settings"
        rm -f "$saved"
        saved=""
    fi
}

install() {
    need_packages "PostgreSQL (its common files)" postgresql-common
    if [ -f "$settings" ]; then
        saved=$(mktemp)
        cp "$settings" "$saved"
        trap put_back EXIT
        echo "create_main_cluster = false" | as_root tee -a "$settings" >/dev/null
    fi
    need_packages "PostgreSQL" postgresql
    put_back
}

has_binaries || install
if ! has_binaries; then
    echo "error: PostgreSQL was installed, but initdb and postgres are nowhere to be found" >&2
    exit 1
fi
