# Installing Debian packages quietly; sourced by the install scripts beside it.
#
#   need_packages REASON PACKAGE...
#
# Installs what apt knows by these names. Without apt, or without the right to use it, says what
# is missing and for what, and ends with 1.

need_packages() {
    local reason=$1
    shift
    if ! command -v apt-get >/dev/null 2>&1; then
        explain "$reason" "$@"
        return 1
    fi
    echo "installing for $reason: $*" >&2
    # Old lists are good enough where new ones cannot be had: installing decides.
    [ -n "${lists_are_new:-}" ] || apt_quietly update || true
    lists_are_new=yes
    if ! apt_quietly install --yes --no-install-recommends "$@"; then
        explain "$reason" "$@"
        return 1
    fi
}

# The words of apt-get after its flags; its output only when it fails.
apt_quietly() {
    local log
    log=$(mktemp)
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    cat "$log" >&2
    rm -f "$log"
    return 1
}

# Runs a command as root: as it is, or by sudo where that asks nothing or can ask somebody.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 2 ]; }; then
        sudo "$@"
    else
        echo "neither root nor sudo" >&2
        return 1
    fi
}

explain() {
    local reason=$1
    shift
    {
        echo "error: $reason is missing and could not be installed"
        echo "  as root on Debian or Ubuntu: apt-get install --no-install-recommends $*"
        echo "  elsewhere: install what your system calls these"
    } >&2
}
