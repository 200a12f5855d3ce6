# The commands of this repository. They need Go, git and make; `make conformance` also needs Node, Python, a JDK, Maven and curl.
# tools/install-for-tests installs the servers and proxies that the tests run.

buf        := GOWORK=off go tool -modfile=tools/buf.mod buf
lint       := GOWORK=off go tool -modfile=$(CURDIR)/tools/lint.mod golangci-lint
vulncheck  := GOWORK=off go tool -modfile=$(CURDIR)/tools/lint.mod govulncheck
score      := GOWORK=off go tool -modfile=tools/score.mod kube-score
FUZZTIME   ?= 10s

# The modules of go.work (the Go pattern "work" matches their packages), and those apart from it: each keeps the requirements of a
# tool, of tests or of an example out of the product's. go tool -modfile and the modules apart need GOWORK=off.
product    := . cmd/grantor interceptors/secretvar
modules    := $(product) examples/mcp tools/board tools/checkdeploy tools/conformance

.PHONY: build test faults conformance conformance-programs generate baseline check-generated check-breaking check-deploy check-modules lint fuzz vulncheck board bench peers

# With grpcnotrace, gRPC does not link golang.org/x/net/trace, which Grantor does not serve and whose templates may call any method
# by its name: with them, the linker keeps every method of every type, a third of the binary.
build: ## Build the binary into bin/. VERSION=v1.2.3 sets the version, for a build outside the repository.
	go build -tags grpcnotrace -ldflags '-X github.com/grantorhq/grantor/cmd/grantor/buildinfo.version=$(VERSION)' -o bin/grantor ./cmd/grantor

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
	go build $(race) -v work
	go test $(race) -timeout 20m -p 3 -parallel 4 $(addprefix ./,$(slow)) \
		$$(go list work | grep -vxF $(addprefix -e github.com/grantorhq/grantor/,$(slow)))
	go test -run '^TestSeriesAreBounded' ./service -callers 1000000
	GOWORK=off go test -C tools/board $(race) ./...
	GOWORK=off go test -C tools/conformance $(race) ./...

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
	GOWORK=off go test -C tools/conformance $(race) -timeout 40m -tags conformance -run Conformance ./...

conformance-programs: ## Build what make conformance builds, for its build cache.
	GOWORK=off go test -C tools/conformance $(race) -tags conformance -timeout 40m -run '^TestPrograms$$'

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
	cd tools/checkdeploy && GOWORK=off go run . -binary $(CURDIR)/bin/grantor $(CURDIR)/deploy
	cd tools/checkdeploy && GOWORK=off go run . -manifests $(CURDIR)/deploy >$(CURDIR)/bin/manifests.yaml
	$(score) score --ignore-container-cpu-limit --kubernetes-version v1.35 --exit-one-on-warning bin/manifests.yaml

check-modules: ## Fail if the go.mod or go.sum of a module is not tidy.
	@for module in $(modules); do echo "== $$module" && GOWORK=off go mod -C $$module tidy -diff || exit 1; done

lint: ## Run the linters in each module.
	@for module in $(modules); do echo "== $$module" && (cd $$module && $(lint) run ./...) || exit 1; done

fuzz: ## Run each fuzz target for FUZZTIME.
	tools/fuzz $(FUZZTIME)

# Needs redis-server and prometheus on the PATH, and takes six minutes.
board: ## Draw the dashboard of a real run into docs/board.svg.
	cd tools/board && GOWORK=off go run . -for 5m -o $(CURDIR)/docs/board.svg

# Takes less than half an hour, on a machine with two cores that does nothing else.
bench: ## Measure Grantor against its targets, into BENCHMARKS.md and docs/bench-*.svg.
	tools/install-for-tests
	go run ./tools/bench

# Takes about ten minutes, on a machine that does nothing else; it needs a JDK and Maven. JAVA_HOME selects another JDK.
peers: ## Measure Grantor beside Hydra, Keycloak and Spring Authorization Server, into BENCHMARKS.md and docs/bench-peers.svg.
	tools/install-for-tests
	go run ./tools/peers

vulncheck: ## Report known vulnerabilities in what the binary and the packages for users use.
	@for module in $(product); do echo "== $$module" && (cd $$module && $(vulncheck) ./...) || exit 1; done
