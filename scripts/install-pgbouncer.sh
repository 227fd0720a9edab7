#!/usr/bin/env bash
# Makes sure that there is a PgBouncer, and prints the directory with it. Tests put one before
# PostgreSQL to see that a pooler is found out, and are skipped without it. Nobody's PgBouncer is
# started: Debian's package would, so it is unpacked into .tidewire/pgbouncer (see places.sh) and
# not installed.
# Ends with 3 where no package is to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/places.sh

place=$(place_for pgbouncer)

if found=$(command -v pgbouncer || command -v /usr/sbin/pgbouncer); then
    dirname "$found"
    exit 0
fi
if [ ! -x "$place/usr/sbin/pgbouncer" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: PgBouncer is missing, and is only unpacked from Debian's package" >&2
        exit 3
    fi
    need_packages "what PgBouncer needs" libc-ares2 '^libevent-2\.1-7(t64)?$' >&2 || exit 3
    mkdir -p "$place.unfinished"
    trap 'rm -rf "$place.unfinished"' EXIT
    (cd "$place.unfinished" && apt-get -qq -o APT::Sandbox::User=root download pgbouncer >&2) || exit 3
    dpkg-deb --extract "$place.unfinished"/pgbouncer_*.deb "$place.unfinished/root"
    chmod -R a+rX "$place.unfinished/root"
    rm -rf "$place"
    mv "$place.unfinished/root" "$place"
fi
echo "$place/usr/sbin"
