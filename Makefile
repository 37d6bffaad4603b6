# Two commands for a fresh machine: `make run` and `make test`. `make cluster` brings up four nodes and two gateways.
#
# --ignore-rust-version: s3s 0.17 declares rustc 1.96 but builds and works on 1.95; older releases of it have known holes.
CARGO ?= cargo
FLAGS := --locked --ignore-rust-version
DATA ?= $(CURDIR)/dozo-data
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo 'docker compose' || echo docker-compose)
# Absolute, because compose would take it as relative to deploy/.
export CLUSTER_SECRETS ?= $(CURDIR)/deploy/secrets
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

SECONDS ?= 600

.PHONY: run build test fmt clippy unit soak test-mutants test-cluster doc deny cluster cluster-image cluster-status cluster-down deps clean

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
test: deps fmt clippy unit test-cluster doc deny

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(FLAGS) --workspace --all-targets --features tests-e2e/docker -- -D warnings

## Shape of the tree, unit, property, model and simulation tests, and real processes under real clients.
unit:
	$(CARGO) build $(FLAGS) --workspace --bins
	$(CARGO) test $(FLAGS) --workspace

## The compose cluster under a docker engine: installs docker.io, docker-compose and debootstrap where they are missing, and starts
## an engine where none runs. Skipped, loudly, where none can run; never in CI.
test-cluster: deps
	$(CARGO) build $(FLAGS) --workspace --bins
	$(CARGO) test $(FLAGS) --workspace --features tests-e2e/docker --test compose --no-run
	tests/e2e/with-docker $(CARGO) test $(FLAGS) --workspace --features tests-e2e/docker --test compose -- --nocapture

## Faults for SECONDS=n against simulated and real clusters in turn; SOAK has further arguments (`--help`). The last line says what
## came of it. Power cuts, partitions and lying disks need root, loop devices and strace, wrong clocks libfaketime; what is not possible is said.
soak: deps
	$(CARGO) build $(FLAGS) --workspace --bins
	$${CARGO_TARGET_DIR:-target}/debug/soak --seconds $(SECONDS) $(SOAK)

## Known bugs, planted one by one in a copy of the tree: the tests must find each of them.
test-mutants: deps
	CARGO="$(CARGO)" FLAGS="$(FLAGS)" tests/mutants/run

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --workspace --no-deps --document-private-items

## Licences, sources and duplicate versions; advisories need the network and are left to `cargo deny check`.
deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	else echo "cargo-deny is not installed (cargo install cargo-deny --locked): skipped; tests/tidy checks sources and versions"; fi

## Four storage nodes in four zones and two gateways, from source. CLUSTER_BINARY names a binary to use instead of compiling one
## (it must run on Debian bookworm), CLUSTER_IMAGE an image that exists; deploy/compose.yaml has the rest of the variables.
cluster: cluster-image
	@[ -d "$(CLUSTER_SECRETS)" ] || deploy/make-secrets "$(CLUSTER_SECRETS)"
	cd deploy && $(COMPOSE) up -d
	@deploy/wait-ready "$(COMPOSE)"

cluster-image:
ifdef CLUSTER_BINARY
	deploy/package "$(CLUSTER_BINARY)" "$(or $(CLUSTER_IMAGE),dozo:local)"
else ifndef CLUSTER_IMAGE
	docker build -t dozo:local -f deploy/Dockerfile .
endif

cluster-status:
	@cd deploy && $(COMPOSE) ps && $(COMPOSE) exec -T gateway1 dozo admin status

## Removes the containers, the network, the data and then the keys to it.
cluster-down:
	cd deploy && $(COMPOSE) down --volumes
	@cd "$(CLUSTER_SECRETS)" 2>/dev/null && rm -f cluster-secret root-access-key root-secret-key && rmdir "$(CLUSTER_SECRETS)" || true

clean:
	$(CARGO) clean
