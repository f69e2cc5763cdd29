# The one interface: people, packagers and CI call the same recipes.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt clippy doc deny conf units deploy monitoring deb bench limits load pgo clean

CARGO ?= cargo
# Seconds of load for each drill of `make load`.
SECONDS_OF_LOAD ?= 60
TOLLGATE := target/debug/tollgate
# The binary that `bench` and `load` measure; the one of `make pgo` is target/pgo/tollgate.
RELEASE ?= target/release/tollgate
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin

help: ## Say what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: cmake, a C compiler, rustfmt, clippy
	@scripts/setup.sh check

demo: ## Build, and try everything at once: services, an issuer, and a gateway in front of them
	@scripts/setup.sh build
	$(CARGO) build --locked --bin tollgate
	@$(TOLLGATE) demo $(ARGS)

test: ## Run every test, through the real binary and real sockets
	@scripts/setup.sh build
	@if $(CARGO) nextest --version > /dev/null 2>&1; then \
		set -x; $(CARGO) nextest run --workspace --locked $(ARGS); \
	else \
		set -x; $(CARGO) test --workspace --locked $(ARGS); \
	fi

check: fmt clippy doc conf units deny ## Check formatting, lints, docs, every configuration file, and dependencies

fmt:
	$(CARGO) fmt --all --check
	@if git grep -n -E '^(<<<<<<<|>>>>>>>) '; then echo "these are left of a merge" >&2; exit 1; fi

clippy:
	@scripts/setup.sh check
	@if $(CARGO) clippy --version > /dev/null 2>&1; then \
		set -x; $(CARGO) clippy --workspace --all-targets --locked -- -D warnings; \
	fi

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

# Files that others include, or that hold keys, stand in directories called files or conf.d.
conf:
	@scripts/setup.sh build
	$(CARGO) build --locked --bin tollgate
	@find conf packaging -name '*.toml' -not -name Cargo.toml -not -name clippy.toml -not -path '*/files/*' -not -path '*/conf.d/*' -print0 | sort -z | \
		xargs -0 -n 1 $(TOLLGATE) check -c

deny:
	@scripts/deny.sh

deploy: ## Check what stands in deploy/: manifests, the chart, rules and their tests (BLESS=1 writes what is made of them)
	@scripts/setup.sh deploy
	$(CARGO) build --locked --bin tollgate
	@scripts/check-deploy.sh $(TOLLGATE)

monitoring: ## Ask every query of dashboards and rules of a real Prometheus, with Tollgate under load
	@scripts/setup.sh deploy
	$(CARGO) build --locked --bin tollgate
	@scripts/try-monitoring.sh $(TOLLGATE)

units:
	@scripts/units.sh

bench: ## Compare what requests cost with nginx, HAProxy and the floor: 25 minutes (ARGS=--quick: three)
	@scripts/setup.sh bench
	$(CARGO) build --release --locked -p tollgate -p tollgate-floor --bin tollgate --bin tollgate-floor
	$(CARGO) build --locked -p tollgate-load
	target/debug/tollgate-load compare --tollgate $(RELEASE) --floor target/release/tollgate-floor $(ARGS)

limits: ## Say what a decision of a limit costs, here and through a Redis server, and a key
	$(CARGO) bench --locked --bench limits --bench store

load: ## Hand over, reload, crash and kill under load, and count what was lost
	@scripts/setup.sh bench
	$(CARGO) build --release --locked --bin tollgate
	$(CARGO) build --locked -p tollgate-load
	target/debug/tollgate-load drill --tollgate $(RELEASE) --for $(SECONDS_OF_LOAD) $(ARGS)

pgo: ## Build the release binary with a profile of itself under load: target/pgo/tollgate, a third less CPU
	@scripts/setup.sh bench
	@scripts/pgo.sh

deb: ## Build the Debian package with man pages, completions and a bill of materials: target/debian (PROFILE=dev: fast)
	@scripts/deb.sh

clean: ## Remove everything that was built
	$(CARGO) clean
