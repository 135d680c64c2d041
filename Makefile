# Heddle. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILDINFO := github.com/heddle-im/heddle/pkg/app/buildinfo
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X $(BUILDINFO).version=$(VERSION) -X $(BUILDINFO).commit=$(COMMIT) -X $(BUILDINFO).date=$(DATE)

# Tests: packages in parallel (they share the machine with the servers that they start), time limit, -race with RACE=1.
P ?= 2
TEST_TIMEOUT ?= 15m
E2E_TIMEOUT ?= 30m
RACE ?=
TESTFLAGS ?=
BENCHTIME ?= 1s
BENCH ?= .
FUZZTIME ?= 20s
# The suites that start whole fleets, each with the machine for itself.
FLEET := ./pkg/testkit/fleettest/...

# Tools are built once for each version, outside the work tree.
TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/heddle/tools
GOLANGCI := $(TOOLS)/golangci-lint@v2.15.0/golangci-lint
GOFUMPT := $(TOOLS)/gofumpt@v0.12.0/gofumpt
BUF := $(TOOLS)/buf@v1.75.0/buf
PROTOC_GEN_GO := $(TOOLS)/protoc-gen-go@v1.36.12/protoc-gen-go
SQLC := $(TOOLS)/sqlc@v1.31.1/sqlc
BENCHSTAT := $(TOOLS)/benchstat@v0.0.0-20260908200009-22c9c6c9d4da/benchstat

define install
	@echo "building $(notdir $@)"
	@mkdir -p $(@D) && GOFLAGS= GOBIN=$(@D) go install $(1)@$(patsubst $(notdir $@)@%,%,$(notdir $(@D)))
endef
$(GOLANGCI): ; $(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
$(GOFUMPT): ; $(call install,mvdan.cc/gofumpt)
$(BUF): ; $(call install,github.com/bufbuild/buf/cmd/buf)
$(PROTOC_GEN_GO): ; $(call install,google.golang.org/protobuf/cmd/protoc-gen-go)
$(SQLC): ; $(call install,github.com/sqlc-dev/sqlc/cmd/sqlc)
$(BENCHSTAT): ; $(call install,golang.org/x/perf/cmd/benchstat)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Running and building

.PHONY: run
run: ## build, bring what is missing, and start the all-in-one server on http://127.0.0.1:8008
	@.ci/need postgresql
	@$(MAKE) build
	@exec bin/heddle run

.PHONY: build
build: ## static binaries in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: image
image: ## container images, one per worker kind (comes with the deployment issue)
	@echo "make image: the container images are not there yet; make complement-image builds the one for tests" >&2; exit 1

.PHONY: complement-image
complement-image: ## the image for the black-box suite: a whole homeserver in a container
	@.ci/need docker debootstrap
	@deploy/complement/build.sh

## Tests

.PHONY: test
test: ## everything that it needs, then unit, integration and end-to-end tests
	@.ci/need postgresql redis nginx haproxy node $(if $(RACE),cc)
	@$(MAKE) node-modules
	go test $(if $(RACE),-race) -p $(P) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $$(go list ./... | grep -v /pkg/testkit/fleettest)
	@if [ -d pkg/testkit/fleettest ]; then set -x; go test $(if $(RACE),-race) -p 1 -timeout $(E2E_TIMEOUT) $(TESTFLAGS) $(FLEET); fi

.PHONY: node-modules
node-modules: # the clients that end-to-end tests use, as their lock files say
	@git ls-files -co --exclude-standard -- '*package-lock.json' | while read -r lock; do \
		dir=$$(dirname $$lock); \
		[ $$dir/node_modules/.package-lock.json -nt $$lock ] || npm ci --prefix $$dir --no-audit --no-fund --loglevel=error; \
	done

.PHONY: robustness
robustness: ## the long fault tests: kill, pause and cut while a recorded load runs
	@grep -rqs '^func TestRobustness' pkg/testkit/fleettest || { echo "make robustness: there are no such tests yet" >&2; exit 1; }
	HEDDLE_TEST_ROBUSTNESS=1 go test -count=1 -timeout 3h -v -run '^TestRobustness' $(TESTFLAGS) $(FLEET)

.PHONY: bench
bench: $(BENCHSTAT) ## the benchmarks, with a table of results (BENCH=regexp, BENCHTIME=1s)
	@.ci/need postgresql redis
	@mkdir -p bin
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -p 1 -timeout 2h $(TESTFLAGS) ./... | tee bin/bench.txt
	@$(BENCHSTAT) bin/bench.txt

.PHONY: pgo
pgo: ## the profile by which the compiler optimises the master (cmd/master/default.pgo), taken anew
	@.ci/need postgresql redis
	@rm -rf bin/profiles && mkdir -p bin/profiles
	BENCH_PROFILES=$(CURDIR)/bin/profiles go test ./pkg/testkit/fleettest -run '^$$' -bench Send -benchtime 60000x
	go tool pprof -proto bin/profiles/*.master-1.pprof | go run ./.ci/pgo >bin/default.pgo
	mv bin/default.pgo cmd/master/default.pgo

.PHONY: profiles
profiles: ## what docs/profiles shows of where processors spend their time, taken anew; the machine should have nothing else to do
	@.ci/need postgresql redis
	@rm -rf bin/profiles && mkdir -p bin/profiles docs/profiles
	BENCH_PROFILES=$(CURDIR)/bin/profiles go test ./pkg/testkit/fleettest -run '^$$' -bench 'Send/rooms=100$$' -benchtime 60000x
	BENCH_PROFILES=$(CURDIR)/bin/profiles go test ./pkg/testkit/fleettest -run '^$$' -bench Lively -benchtime 1x
	.ci/profiles bin/profiles docs/profiles

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@.ci/fuzz $(FUZZTIME)

## Checks

.PHONY: lint
lint: $(GOFUMPT) $(GOLANGCI) $(BUF) ## formatting, vet, linters, protobuf lint and breaking changes, chart
	@out=$$($(GOFUMPT) -l cmd pkg); \
		[ -z "$$out" ] || { echo "not formatted (run make fmt):"; echo "$$out"; exit 1; }
	go vet ./...
	$(GOLANGCI) run --allow-parallel-runners ./...
	cd pkg/shardlog/wire && $(BUF) lint && $(BUF) breaking --against testdata/released.binpb
	@grep -rlE '^#!.*sh$$$$' .ci deploy | while read -r f; do bash -n $$f; done
	@[ -d helm ] || echo "lint: there is no chart yet"

.PHONY: fmt
fmt: $(GOFUMPT) ## format the Go files
	@$(GOFUMPT) -l -w cmd pkg

.PHONY: generate
generate: $(BUF) $(PROTOC_GEN_GO) $(SQLC) ## make what is made from sources: protobuf, SQL, reference docs
	cd pkg/shardlog/wire && PATH=$(dir $(PROTOC_GEN_GO)):$$PATH $(BUF) generate
	cd pkg/store && $(SQLC) generate
	go test -count=1 ./pkg/config -run '^TestReference$$' -rewrite

.PHONY: check-generated
check-generated: $(BUF) $(PROTOC_GEN_GO) $(SQLC) ## fail if a generated file is not what its source makes
	@.ci/check-generated

.PHONY: wire-release
wire-release: $(BUF) ## note the protobuf schema as released: from then on it may not be broken
	cd pkg/shardlog/wire && $(BUF) build -o testdata/released.binpb

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
