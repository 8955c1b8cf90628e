# The two commands of the README, and the few others a developer needs. `make help` lists them.
.PHONY: help demo test build web peers lint bench
SHELL := /bin/bash
DIST := web/dist/index.html
export FOREBAY_VENV ?= $(CURDIR)/.venv

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: build ## build everything and run a whole plant: http://127.0.0.1:8080
	@"$$(scripts/target-dir)"/release/forebay demo $(ARGS)

build: $(DIST) ## the release binary with its page
	cargo build --release --locked

$(DIST): web/package-lock.json $(wildcard web/src/*) web/index.html
	cd web && npm ci --no-audit --no-fund --loglevel=error && npm run build

web: $(DIST) ## the page alone

peers: ## what the tests need beside Rust: Debian packages, a Python venv, Node packages
	scripts/peers

lint: ## format and clippy, as CI runs them
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: peers $(DIST) lint ## every test, with real peers
	scripts/instructions
	cargo build --locked
	cargo test --workspace --locked --no-fail-fast

bench: ## the figures of docs/performance.md
	cargo build --release --locked
	"$$(scripts/target-dir)"/release/forebay bench all
