# The commands of this repository. A new machine needs Go, git and make; `make conformance` needs Node as well.

buf        := go tool -modfile=tools/buf.mod buf
lint       := go tool -modfile=tools/lint.mod golangci-lint
vulncheck  := go tool -modfile=tools/lint.mod govulncheck
FUZZTIME   ?= 10s

.PHONY: build test faults conformance generate baseline check-generated check-breaking lint fuzz vulncheck

build: ## Build the binary into bin/.
	go build -o bin/grantor ./cmd/grantor

test: ## Run the tests, with a real redis-server.
	tools/install-for-tests
	go test -race ./...

# make test, and so .ci/run, runs these too, with outages of a few seconds.
faults: ## Run the fault tests with outages of a minute.
	tools/install-for-tests
	go test -race -parallel 5 -run '^TestOutage' ./service ./cmd/grantor -outage 60s
	go test -race -run '^TestRotationUnderLoad' ./service -rotation 60s

conformance: ## Run third-party clients from npm against the issuer.
	go test -race -tags conformance -run Conformance ./service/rest/...

generate: ## Write gen/ anew from proto/.
	$(buf) generate
	$(buf) generate --template examples/datasync/buf.gen.yaml

baseline: ## Accept the present contract as the one that later changes must not break.
	$(buf) build proto --exclude-source-info -o proto/baseline.binpb

check-generated: generate ## Fail if generating changes a file that is committed.
	git diff --exit-code -- gen examples
	test -z "$$(git status --porcelain -- gen examples)"

check-breaking: ## Fail if the contract breaks callers of the baseline.
	$(buf) format --diff --exit-code
	$(buf) lint
	$(buf) breaking proto --against proto/baseline.binpb

lint: ## Run the linters.
	$(lint) run ./...

fuzz: ## Run each fuzz target for FUZZTIME.
	tools/fuzz $(FUZZTIME)

vulncheck: ## Look for known vulnerabilities in what the binary uses.
	$(vulncheck) ./...
