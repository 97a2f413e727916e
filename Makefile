# The commands of this repository. They need Go and make, and what the race
# detector needs, a C compiler. Everything else is built from internal/tools.
#
#   make test        every module's tests, under the race detector
#   make check       all that CI does
#   make help        the rest

# Modules are found, not listed: a folder with a go.mod is one.
MODULES := . $(patsubst %/go.mod,%,$(sort $(shell find . -mindepth 2 -name go.mod \
	-not -path './.*' -not -path '*/testdata/*' -not -path './internal/tools/*')))
ALL_MODULES := $(MODULES) ./internal/tools

# Tools are kept per Go version and rebuilt when their pins change.
BIN := $(CURDIR)/.tmp/bin/$(shell go env GOVERSION)

# The race detector needs cgo, which go turns off if there is no C compiler.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

TESTFLAGS ?=
# A count, because go test may fail when a time is up: "context deadline exceeded".
FUZZTIME  ?= 20000x
SOAK      ?= 10m
BENCH     ?= .
BENCHTIME ?= 1s
BENCHFLAGS ?=
VARIANTS  ?=

# $(call each,modules,command) runs the command in every module, then fails if
# it failed in any.
define each
@failed=; for module in $(1); do \
	echo "==> $$module: $(strip $(2))"; \
	(cd $$module && $(2)) || failed="$$failed $$module"; \
done; \
test -z "$$failed" || { echo "failed in:$$failed" >&2; exit 1; }
endef

.PHONY: help test test-engine check lint fmt fuzz soak bench benchmarks vuln tidy tidy-check generate generate-check conformance

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

test: ## Test every module, with -race and in random order.
	$(if $(RACE),,@echo "no C compiler found: testing without the race detector" >&2)
	$(call each,$(MODULES),go test $(RACE) -shuffle=on $(TESTFLAGS) ./...)

test-engine: ## Test streamwrap again, with an Engine below everything, or parts of it.
	go test $(RACE) -shuffle=on -skip '^TestEngine' ./streamwrap $(TESTFLAGS) -engine=all
	go test $(RACE) -shuffle=on -skip '^TestEngine' ./streamwrap $(TESTFLAGS) -engine=client

check: ## Do what CI does.
	@.ci/run

lint: $(BIN)/golangci-lint ## Check formatting, then run go vet and golangci-lint.
	@files=$$(find . -name '*.go' -not -path './.*' -exec gofmt -l {} +); \
	test -z "$$files" || { echo "not formatted with gofmt:" $$files >&2; exit 1; }
	$(call each,$(MODULES),go vet ./...)
	$(call each,$(MODULES),$(BIN)/golangci-lint run ./...)

fmt: $(BIN)/golangci-lint ## Format all code.
	$(call each,$(MODULES),$(BIN)/golangci-lint fmt ./...)

fuzz: ## Run every fuzz test FUZZTIME each (20000x, 30s).
	@found=; for file in $$(find . -name '*_test.go' -not -path './.*' | sort); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			found=yes; echo "==> $$file: $$name"; \
			(cd $$(dirname $$file) && go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
		done; \
	done; \
	test -n "$$found" || echo "there are no fuzz tests yet"

soak: ## Run all interceptors over a network that fails, for SOAK (10m).
	go -C internal/soak test $(RACE) -v -timeout 24h $(TESTFLAGS) . -soak=$(SOAK)

bench: ## Print the tables of the README: connect, the Engine and grpc-go side by side.
	go -C internal/bench run ./tables $(BENCHFLAGS)

benchmarks: ## Run the benchmarks that match BENCH, for BENCHTIME each.
	$(call each,$(MODULES),go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...)

vuln: $(BIN)/govulncheck ## Look for known vulnerabilities; needs vuln.go.dev or VULNDB.
	$(call each,$(MODULES),$(BIN)/govulncheck $(if $(VULNDB),-db $(VULNDB)) ./...)

tidy: ## Tidy every go.mod.
	$(call each,$(ALL_MODULES),go mod tidy)

tidy-check: ## Fail if a go.mod is not tidy.
	$(call each,$(ALL_MODULES),go mod tidy -diff)

generate: $(BIN)/buf ## Generate examples/gen from examples/proto.
	cd examples && $(BIN)/buf lint && $(BIN)/buf generate

generate-check: $(BIN)/buf ## Fail if examples/gen is not what generate makes.
	cd examples && $(BIN)/buf lint && $(BIN)/buf format --diff --exit-code
	@rm -rf .tmp/generated
	cd examples && $(BIN)/buf generate --output $(CURDIR)/.tmp/generated
	diff -r .tmp/generated/gen examples/gen

conformance: $(BIN)/buf ## Run the official Connect conformance suite, in all VARIANTS.
	BUF=$(BIN)/buf internal/conformance/run.sh $(VARIANTS)

$(BIN)/%: internal/tools/go.mod internal/tools/go.sum
	@echo "==> building $* (once)"
	@mkdir -p $(BIN)
	@go -C internal/tools build -o $@ $$(go -C internal/tools list tool | grep '/$*$$')
