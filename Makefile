# Two commands: `make run` to see it, `make test` to trust it. The rest is for those who change it.

# What `make run` adds to `tidewire dev`, for instance: make run ARGS="--listen 127.0.0.1:9000"
ARGS ?=

.PHONY: help run test test-rust test-clients test-packages check check-dependencies check-perf docs bench bench-peers bench-micro bench-agreement clean

help:
	@echo "make run     build Tidewire and try it: a private PostgreSQL, the server, live traffic"
	@echo "make test    run all tests, in Rust, with outside clients, and of the npm packages"
	@echo "make check   formatting, lints and documentation, warnings being errors"
	@echo "make check-dependencies   licences, sources and security advisories of the libraries in use"
	@echo "make check-perf   count the instructions of the hot paths and hold them against their budget"
	@echo "make docs    write docs/config.md anew from the table of keys"
	@echo "make bench   measure: cost, latency and memory in every scenario; see docs/performance.md"
	@echo "make bench-peers   the same beside nginx with Nchan, ws, Socket.IO and NATS, in turns"
	@echo "make bench-micro   measure the same hot paths by the clock, with criterion"
	@echo "make bench-agreement   does a second program that measures find the same?"
	@echo "make clean   remove what was built and the private PostgreSQL"

run:
	@scripts/install-build.sh
	@scripts/install-postgres.sh
	cargo run --package tidewire-server -- dev $(ARGS)

test: test-rust test-clients test-packages

test-rust:
	@scripts/install-build.sh
	@scripts/install-postgres.sh
	scripts/test-rust.sh

test-clients:
	@scripts/install-build.sh
	@scripts/install-postgres.sh
	scripts/test-clients.sh

test-packages:
	@scripts/install-build.sh
	@scripts/install-postgres.sh
	scripts/test-packages.sh

check: check-dependencies
	@scripts/install-build.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

check-dependencies:
	@scripts/check-dependencies.sh

# ONLY and UPDATE_BUDGET are told in the script.
check-perf:
	@scripts/check-perf.sh

docs:
	UPDATE_DOCS=1 cargo test --quiet --package tidewire-server --lib the_documentation_is_true

# RUNS, SECONDS_EACH, SCENARIOS, SYSTEMS and RECORD are told in the scripts.
bench:
	@scripts/bench.sh

bench-peers:
	@scripts/bench-peers.sh

bench-micro:
	@scripts/bench-micro.sh

bench-agreement:
	@scripts/bench-agreement.sh

clean:
	cargo clean
	rm -rf .tidewire .venv crates/bench/peers/node_modules clients/node_modules
	@if [ -w /var/cache/tidewire ]; then rm -rf /var/cache/tidewire; fi
