#!/bin/sh
# Starts the issuer in development mode, a service in Python, the guard and Envoy, each on loopback, until Ctrl-C.
set -eu
cd "$(dirname "$0")/../.."
for program in go curl python3 envoy; do
	command -v "$program" >/dev/null || { echo "this example needs $program" >&2; exit 1; }
done
processes=
trap 'trap - EXIT INT TERM; kill $processes 2>/dev/null; wait' EXIT INT TERM
start() {
	"$@" &
	processes="$processes $!"
}
# ready waits for a URL, as long as the process that was started last runs.
ready() { until curl -s -o /dev/null --fail "$1"; do kill -0 $! 2>/dev/null || exit 1; sleep 0.1; done; }

go build -o bin/grantor ./cmd/grantor
start bin/grantor serve --dev --log-level warn
ready http://localhost:8082/readyz
start python3 examples/envoy/service.py
start bin/grantor guard --config examples/envoy/guard.yaml
ready http://localhost:9192/readyz
start envoy -c examples/envoy/envoy.yaml --use-dynamic-base-id --concurrency 1 -l error
ready http://localhost:8000/health
echo "ready: http://localhost:8000/orders/7"
wait
