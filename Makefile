# The commands of this repository. They need Go, git and make; `make conformance` also needs Node, Python, a JDK, Maven and curl.
# tools/install-for-tests installs the servers and proxies that the tests run.

buf        := go tool -modfile=tools/buf.mod buf
lint       := go tool -modfile=$(CURDIR)/tools/lint.mod golangci-lint
vulncheck  := go tool -modfile=tools/lint.mod govulncheck
score      := go tool -modfile=tools/score.mod kube-score
FUZZTIME   ?= 10s

# The modules beside the product's own. Each keeps the requirements of a tool, of tests or of an example out of the product's
# go.mod.
modules    := tools/board tools/checkdeploy tools/conformance examples/mcp

.PHONY: build test faults conformance conformance-programs generate baseline check-generated check-breaking check-deploy check-modules lint fuzz vulncheck board bench

build: ## Build the binary into bin/. VERSION=v1.2.3 sets the version, for a build outside the repository.
	go build -ldflags '-X github.com/grantorhq/grantor/cmd/grantor/buildinfo.version=$(VERSION)' -o bin/grantor ./cmd/grantor

# The race detector without the instrumentation of Argon2, which takes four times the processor time with it, and of whose 19
# MiB the detector keeps several times as much. What calls it is instrumented.
race := -race -gcflags=golang.org/x/crypto/argon2=-race=false

# go test runs packages in the order of its arguments. The three that take longest come first, beside which all others run.
# Tests mostly wait, so more of them run than there are processors: those of three packages, and of four tests in each that
# run in parallel.
slow := cmd/grantor service cmd/grantor/ports

test: ## Run the tests with the race detector and a real redis-server.
	tools/install-for-tests
	@echo '== compiling with the race detector: minutes the first time, seconds from then on'
	go build $(race) -v ./...
	go test $(race) -timeout 20m -p 3 -parallel 4 $(addprefix ./,$(slow)) \
		$$(go list ./... | grep -vxF $(addprefix -e github.com/grantorhq/grantor/,$(slow)))
	go test -run '^TestSeriesAreBounded' ./service -callers 1000000
	go test -C tools/board $(race) ./...
	go test -C tools/conformance $(race) ./...
	go test -C examples/mcp $(race) ./...

# make test runs these tests too, with outages of a few seconds.
faults: ## Run the fault tests with outages and restarts of a minute, and the attacks for longer.
	tools/install-for-tests
	go test -race -parallel 5 -run '^TestOutage' ./service ./cmd/grantor -outage 60s
	go test -race -run '^TestRotationUnderLoad' ./service -rotation 60s
	go test -race -run '^TestRollingRestart' ./cmd/grantor -restarts 60s
	go test -race -run '^TestGuessing' ./service -guessing 60s
	go test -v -timeout 30m -run '^TestAttacks' ./cmd/grantor/ports -attack 20s

conformance: ## Run curl, clients of npm, PyPI, Maven and Kubernetes, Chromium, other programs, the examples, and proxies with the guard, against the issuer.
	tools/install-for-tests conformance
	go test -C tools/conformance $(race) -timeout 40m -tags conformance -run Conformance ./...

conformance-programs: ## Build what make conformance builds, for its build cache.
	go test -C tools/conformance $(race) -tags conformance -timeout 40m -run '^TestPrograms$$'

generate: ## Generate gen/ and the code of the examples from their .proto files.
	$(buf) generate
	cp proto/doc.go.txt gen/grantor/v1/doc.go
	$(buf) generate --template examples/datasync/buf.gen.yaml

baseline: ## Record the present API as the one that later changes must not break.
	$(buf) build proto --exclude-source-info -o proto/baseline.binpb

check-generated: generate ## Fail if the committed generated code is not up to date.
	git diff --exit-code -- gen examples
	test -z "$$(git status --porcelain -- gen examples)"

check-breaking: ## Fail if the API breaks callers of the baseline.
	$(buf) format --diff --exit-code
	$(buf) lint
	$(buf) breaking proto --against proto/baseline.binpb

check-deploy: build ## Check the image, the manifests and the units, as far as possible without a cluster.
	tools/install-for-tests
	tools/check-image
	cd tools/checkdeploy && go run . -binary $(CURDIR)/bin/grantor $(CURDIR)/deploy
	cd tools/checkdeploy && go run . -manifests $(CURDIR)/deploy >$(CURDIR)/bin/manifests.yaml
	$(score) score --ignore-container-cpu-limit --kubernetes-version v1.35 --exit-one-on-warning bin/manifests.yaml

check-modules: ## Fail if the go.mod or go.sum of a module is not tidy.
	@for module in . $(modules); do echo "== $$module" && go mod -C $$module tidy -diff || exit 1; done

lint: ## Run the linters in each module.
	@for module in . $(modules); do echo "== $$module" && (cd $$module && $(lint) run ./...) || exit 1; done

fuzz: ## Run each fuzz target for FUZZTIME.
	tools/fuzz $(FUZZTIME)

# Needs redis-server and prometheus on the PATH, and takes six minutes.
board: ## Draw the dashboard of a real run into docs/board.svg.
	cd tools/board && go run . -for 5m -o $(CURDIR)/docs/board.svg

# Takes about half an hour, on a machine that does nothing else.
bench: ## Measure Grantor against its targets, into BENCHMARKS.md and docs/bench-*.svg.
	tools/install-for-tests
	go run ./tools/bench

vulncheck: ## Report known vulnerabilities in what the binary uses.
	$(vulncheck) ./...
