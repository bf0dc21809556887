# What there is to do with this repository; `make help` lists it. All that is needed is cargo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# The programs, as far as their crates are there.
BINARIES := $(foreach name,proxy client discovery,$(if $(wildcard crates/$(name)/Cargo.toml),$(name)))
PACKAGES = $(addprefix -p pushprox-,$(BINARIES))

# Where the images go: docker builds $(TAGBASE)/proxy:$(VERSION) and so on, as the Go fork does.
TAGBASE ?= pushprox
VERSION ?= $(shell sed -n '/^\[workspace.package\]/,/^\[/ s/^version *= *"\(.*\)"/\1/p' Cargo.toml)
# What --version shows besides the version, where this is a git checkout.
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null)
IMAGES := $(foreach name,$(BINARIES),$(if $(wildcard Dockerfile.$(name)),$(name)))

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## Build the programs for release and leave them here: ./proxy, ./client, ./discovery
	$(if $(REVISION),PUSHPROX_REVISION=$(REVISION)) cargo build --release --locked $(PACKAGES)
	@folder=$$(scripts/target-folder)/release; for name in $(BINARIES); do \
		cp "$$folder/$$name" "./$$name"; echo "./$$name"; done

.PHONY: run
# Discovery is what takes longest to build, and has no part in this.
run: BINARIES := proxy client
run: build ## Build, and try a proxy and a client on this machine until Ctrl-C
	@scripts/demo

.PHONY: test
test: ## Run all tests; installs Debian's prometheus, node exporter and nginx where missing
	@scripts/install-test-programs
	@scripts/test

.PHONY: test-kubernetes
test-kubernetes: ## Test discovery against a real Kubernetes API server, built from Debian's source the first time
	@KUBE_APISERVER=$$(scripts/kube-apiserver) RUST_TEST_THREADS=1 \
		cargo test -p pushprox-discovery --features test-kubernetes --test it -- kubernetes::

.PHONY: lint
lint: ## Check format, lints, documentation and dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
	@# The lock file of fuzz/ fits the crates here, which it depends on.
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	@if cargo deny --version >/dev/null 2>&1; then \
		set -x; cargo deny --locked check bans licenses sources; \
	else echo "cargo deny is not installed (cargo install --locked cargo-deny): dependencies are not checked"; fi

.PHONY: fuzz
fuzz: ## Fuzz each parser of foreign bytes for a minute: make fuzz SECONDS_EACH=10 TARGETS="name pushed" SANITIZER=address
	@SECONDS_EACH="$(SECONDS_EACH)" SANITIZER="$(SANITIZER)" scripts/fuzz $(TARGETS)

.PHONY: bench
bench: ## Measure the programs against their goals in two minutes; BENCH=--help tells what else
	cargo build --release --locked -p pushprox-proxy -p pushprox-client -p pushprox-bench
	@"$$(scripts/target-folder)/release/bench" $(BENCH)

.PHONY: soak
soak: ## Ten minutes of random faults under load; SOAK='--duration=1h --seed=7' for others
	cargo build --release --locked -p pushprox-proxy -p pushprox-client -p pushprox-soak
	@"$$(scripts/target-folder)/release/soak" $(SOAK)

.PHONY: docker
docker: $(addprefix docker-,$(IMAGES)) ## Build the images: make docker TAGBASE=registry/folder VERSION=1.2

.PHONY: $(addprefix docker-,$(IMAGES))
$(addprefix docker-,$(IMAGES)): docker-%:
	docker build --build-arg PUSHPROX_VERSION=$(VERSION) $(if $(REVISION),--build-arg PUSHPROX_REVISION=$(REVISION)) -t $(TAGBASE)/$*:$(VERSION) -f Dockerfile.$* .
