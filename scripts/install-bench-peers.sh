#!/usr/bin/env bash
# Makes sure that there are the servers that `make bench-peers` measures beside Tidewire: nginx with
# Nchan, nats-server, and Node with `ws` and Socket.IO. None of them is started.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

# Debian starts a server with its package unless this program says no.
policy=/usr/sbin/policy-rc.d

allow_services() {
    if [ -n "${forbidden:-}" ]; then
        as_root rm -f "$policy"
        forbidden=""
    fi
}

forbid_services() {
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        forbidden=yes
        trap allow_services EXIT
    fi
}

has_nchan() {
    [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] && PATH=$PATH:/usr/sbin command -v nginx >/dev/null
}

has_nats() {
    PATH=$PATH:/usr/sbin command -v nats-server >/dev/null
}

if ! has_nchan || ! has_nats; then
    forbid_services
    has_nchan || need_packages "nginx with Nchan" nginx-light libnginx-mod-nchan
    has_nats || need_packages "nats-server" nats-server
    allow_services
fi

scripts/install-node.sh
if [ ! -d crates/bench/peers/node_modules/ws ] || [ ! -d crates/bench/peers/node_modules/socket.io ]; then
    npm install --prefix crates/bench/peers --no-package-lock --no-audit --no-fund --silent
fi
