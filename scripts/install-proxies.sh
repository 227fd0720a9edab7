#!/usr/bin/env bash
# Makes sure that there are the proxies whose settings docs/operating.md shows: nginx, HAProxy and
# Caddy. Prints the directories with them, separated by colons. Nobody's proxy is started: Debian's
# packages would, so they are unpacked into .tidewire/proxies (see places.sh) and not installed.
# Ends with 3 where no packages are to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/places.sh

place=$(place_for proxies)
found=$place/usr/sbin:$place/usr/bin

has_all() {
    local name
    for name in nginx haproxy caddy; do
        PATH=$PATH:/usr/sbin:$found command -v "$name" >/dev/null || return 1
    done
}

if ! has_all; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: nginx, HAProxy or Caddy is missing, and they are only unpacked from Debian's packages" >&2
        exit 3
    fi
    need_packages "certificates for the proxies" openssl >&2 || exit 3
    # shellcheck disable=SC2046 # each word is a package
    need_packages "what the proxies need" \
        $(apt-cache depends nginx haproxy | awk '/^ *Depends: [^<]/ && $2 !~ /^nginx/ { print $2 }') \
        >&2 || exit 3
    mkdir -p "$place.unfinished"
    trap 'rm -rf "$place.unfinished"' EXIT
    (cd "$place.unfinished" && apt-get -qq -o APT::Sandbox::User=root download nginx haproxy caddy >&2) || exit 3
    for package in "$place.unfinished"/*.deb; do
        dpkg-deb --extract "$package" "$place.unfinished/root"
    done
    chmod -R a+rX "$place.unfinished/root"
    rm -rf "$place"
    mv "$place.unfinished/root" "$place"
fi
has_all
echo "$found:/usr/sbin"
