#!/bin/sh
# Starts the issuer in development mode, a service in Node.js, the guard and nginx, each on loopback, until Ctrl-C.
set -eu
cd "$(dirname "$0")/../.."
for program in go curl node nginx; do
	command -v "$program" >/dev/null || { echo "this example needs $program" >&2; exit 1; }
done
processes= state=
trap 'trap - EXIT INT TERM; kill $processes 2>/dev/null; wait; rm -rf "$state"' EXIT INT TERM
start() {
	"$@" &
	processes="$processes $!"
}
# ready waits for a URL, as long as the process that was started last runs.
ready() { until curl -s -o /dev/null --fail "$1"; do kill -0 $! 2>/dev/null || exit 1; sleep 0.1; done; }

go build -o bin/grantor ./cmd/grantor
start bin/grantor serve --dev --log-level warn
ready http://localhost:8082/readyz
start node examples/nginx/service.js
start bin/grantor guard --config examples/nginx/guard.yaml
ready http://localhost:9192/readyz
state=$(mktemp -d)
start nginx -p "$state" -c "$PWD/examples/nginx/nginx.conf" -e stderr -g 'daemon off; pid nginx.pid;'
ready http://localhost:8000/health
echo "ready: http://localhost:8000/orders/7"
wait
