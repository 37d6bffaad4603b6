# Two commands for a fresh machine: `make run` and `make test`. `make cluster` brings up four nodes and two gateways.
#
# --ignore-rust-version: s3s 0.17 declares rustc 1.96 but builds and works on 1.95; older releases of it have known holes.
CARGO ?= cargo
FLAGS := --locked --ignore-rust-version
DATA ?= $(CURDIR)/dozo-data
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo 'docker compose' || echo docker-compose)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run build test fmt clippy unit doc deny cluster cluster-image cluster-down deps clean

## Builds the release binary, starts one embedded server on $(DATA), and prints how to use it.
run: build
	@mkdir -p "$(DATA)"
	target/release/dozo server "$(DATA)"

build: deps
	$(CARGO) build --release $(FLAGS) --bin dozo

## What cannot be built without: a C++ compiler and libclang for RocksDB's bindings.
deps:
	@if command -v c++ >/dev/null && ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -q .; then :; \
	elif command -v apt-get >/dev/null; then \
	  echo "installing g++ and libclang-dev (needed to build RocksDB)"; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq g++ libclang-dev >/dev/null; \
	else echo "please install a C++ compiler and libclang (for RocksDB's bindings)"; exit 1; fi
	@command -v $(CARGO) >/dev/null || { echo "please install Rust 1.95 or later: https://rustup.rs"; exit 1; }

## Everything CI checks. Always the whole workspace: other selections of packages select other features, and each such set
## would compile RocksDB again.
test: deps fmt clippy unit doc deny

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(FLAGS) --workspace --all-targets -- -D warnings

## Shape of the tree, unit, property, model and simulation tests, and real processes under real clients.
unit:
	$(CARGO) build $(FLAGS) --workspace --bins
	$(CARGO) test $(FLAGS) --workspace

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --workspace --no-deps --document-private-items

## Licences, sources and duplicate versions; advisories need the network and are left to `cargo deny check`.
deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	else echo "cargo-deny is not installed (cargo install cargo-deny --locked): skipped; tests/tidy checks sources and versions"; fi

cluster: deploy/secrets
	cd deploy && $(COMPOSE) up -d --build
	@deploy/wait-ready

cluster-down:
	cd deploy && $(COMPOSE) down --volumes

deploy/secrets:
	@mkdir -p deploy/secrets && umask 077 && \
	  od -An -tx1 -N32 /dev/urandom | tr -d ' \n' > deploy/secrets/cluster-secret && \
	  printf 'DOZO%s' "$$(od -An -tx1 -N6 /dev/urandom | tr -d ' \n' | tr a-f A-F)" > deploy/secrets/root-access-key && \
	  od -An -tx1 -N24 /dev/urandom | tr -d ' \n' > deploy/secrets/root-secret-key
	@chmod 755 deploy/secrets && chmod 644 deploy/secrets/*

clean:
	$(CARGO) clean
