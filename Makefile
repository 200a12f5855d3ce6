# The commands of this repository. A new machine needs Go, git and make; `make conformance` needs Node as well.

buf        := go tool -modfile=tools/buf.mod buf
lint       := go tool -modfile=tools/lint.mod golangci-lint
vulncheck  := go tool -modfile=tools/lint.mod govulncheck
score      := go tool -modfile=tools/score.mod kube-score
FUZZTIME   ?= 10s

.PHONY: build test faults conformance generate baseline check-generated check-breaking check-deploy lint fuzz vulncheck board bench

build: ## Build the binary into bin/; VERSION=v1.2.3 names a release that is built without its repository.
	go build -ldflags '-X github.com/grantorhq/grantor/cmd/grantor/buildinfo.version=$(VERSION)' -o bin/grantor ./cmd/grantor

test: ## Run the tests, with a real redis-server.
	tools/install-for-tests
	go test -race -timeout 20m ./...
	go test -run '^TestSeriesAreBounded' ./service -callers 1000000

# make test, and so .ci/run, runs these too, with outages of a few seconds.
faults: ## Run the fault tests with outages and restarts of a minute, and the attacks for longer.
	tools/install-for-tests
	go test -race -parallel 5 -run '^TestOutage' ./service ./cmd/grantor -outage 60s
	go test -race -run '^TestRotationUnderLoad' ./service -rotation 60s
	go test -race -run '^TestRollingRestart' ./cmd/grantor -restarts 60s
	go test -race -run '^TestGuessing' ./service -guessing 60s
	go test -v -timeout 30m -run '^TestAttacks' ./cmd/grantor -attack 20s

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

check-deploy: build ## Check images, manifests and units, as far as it can be without a cluster.
	tools/install-for-tests
	tools/check-image
	cd tools/checkdeploy && go run . -binary $(CURDIR)/bin/grantor $(CURDIR)/deploy
	cd tools/checkdeploy && go run . -manifests $(CURDIR)/deploy >$(CURDIR)/bin/manifests.yaml
	$(score) score --ignore-container-cpu-limit --kubernetes-version v1.35 --exit-one-on-warning bin/manifests.yaml

lint: ## Run the linters.
	$(lint) run ./...

fuzz: ## Run each fuzz target for FUZZTIME.
	tools/fuzz $(FUZZTIME)

# Needs redis-server and prometheus on the PATH; it takes six minutes.
board: ## Draw the dashboard of a real run into docs/board.svg.
	go run ./tools/board -for 5m -o docs/board.svg

# It takes about half an hour, and wants a machine that does nothing else meanwhile.
bench: ## Measure everything against its yardsticks, into BENCHMARKS.md and docs/bench-*.svg.
	tools/install-for-tests
	go run ./tools/bench

vulncheck: ## Look for known vulnerabilities in what the binary uses.
	$(vulncheck) ./...
