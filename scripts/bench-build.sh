# Builds what measuring needs and defines `bench`; sourced by the scripts beside it.

scripts/install-build.sh
cargo build --release --package tidewire-server --package tidewire-bench

# Ten thousand clients take ten thousand files here and as many in the server.
ulimit -n "$(ulimit -Hn)"

bench() {
    target/release/tidewire-bench "$@"
}
