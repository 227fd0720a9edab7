# Where tools are put that the tests start as another user; sourced by the install scripts.
#
#   place_for NAME
#
# Prints .tidewire/NAME of this checkout. PostgreSQL and PgBouncer do not run as root, so under root
# they are started as the user `postgres` (or `nobody`). Where that user cannot get into the
# checkout, as in a home directory that is closed to others, it is /var/cache/tidewire/NAME, which
# only root can write to.

place_for() {
    local here=$PWD/.tidewire user
    if [ "$(id -u)" -eq 0 ]; then
        user=postgres
        id "$user" >/dev/null 2>&1 || user=nobody
        if ! runuser -u "$user" -- test -r "$PWD/Makefile" 2>/dev/null; then
            here=/var/cache/tidewire
            mkdir -p "$here"
            chmod a+rx "$here"
        fi
    fi
    mkdir -p "$here"
    echo "$here/$1"
}
