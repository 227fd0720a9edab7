# Builds what measuring needs, unless BUILT=1, and defines `bench`, `runs` and `seconds`; sourced by
# the scripts beside it.

if [ -z "${BUILT:-}" ]; then
    scripts/install-build.sh
    cargo build --release --package tidewire-server --package tidewire-bench
fi

if [ -n "${QUICK:-}" ]; then
    runs=${RUNS:-1} seconds=${SECONDS_EACH:-2}
else
    runs=${RUNS:-3} seconds=${SECONDS_EACH:-5}
fi

# Ten thousand clients take ten thousand files here and as many in the server.
ulimit -n "$(ulimit -Hn)"

bench() {
    target/release/tidewire-bench "$@"
}
