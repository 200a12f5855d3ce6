// Board draws the dashboard of deploy/grafana as it looks after a real run: it starts a Redis, two replicas of the issuer
// and a Prometheus, puts load on them, and draws what Prometheus answers to the expressions of each panel.
//
//	go run ./tools/board -for 5m -o docs/board.svg
//
// It needs go, redis-server and prometheus on the PATH, and the root of the repository as the directory.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/grantorhq/grantor/tools/local"
)

func main() {
	length := flag.Duration("for", 5*time.Minute, "how long the load lasts")
	out := flag.String("o", "docs/board.svg", "where the picture goes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *length, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

func run(ctx context.Context, length time.Duration, out string) error {
	content, err := os.ReadFile("deploy/grafana/grantor.json")
	if err != nil {
		return err
	}
	var b dashboard
	if err := json.Unmarshal(content, &b); err != nil { //nolint:musttag // its names differ by case alone
		return err
	}
	dir, err := os.MkdirTemp("", "board")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := newWorld(ctx, dir)
	if err != nil {
		return err
	}
	defer w.stop()
	began := time.Now()
	if err := w.load(ctx, length); err != nil {
		return err
	}
	ended := time.Now()
	picture, err := draw(&b, began, ended, func(expr string) ([]line, error) { return w.query(ctx, expr, began, ended) })
	if err != nil {
		return err
	}
	return os.WriteFile(out, picture, 0o600)
}

// dashboard is what is drawn of a dashboard of Grafana.
type dashboard struct {
	Title  string
	Panels []panel
}

type panel struct {
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Decimals   *int
			Min        *float64
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Custom struct {
				Stacking    struct{ Mode string }
				AxisSoftMin *float64
			}
		}
	}
	Options struct{ TextMode string }
	Targets []struct{ Expr, LegendFormat string }
}

// line is a series as Prometheus gives it.
type line struct {
	labels map[string]string
	points []point
}

type point struct{ at, value float64 }

// step is how far apart the points are; the rates are over window.
const (
	step   = 2 * time.Second
	window = "15s"
)

// query evaluates an expression of a panel over a time.
func (w *world) query(ctx context.Context, expr string, from, to time.Time) ([]line, error) {
	expr = strings.NewReplacer("$__rate_interval", window, "$job", ".*", "$instance", ".*").Replace(expr)
	query := url.Values{
		"query": {expr}, "step": {strconv.Itoa(int(step.Seconds()))},
		"start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.prometheus+"/api/v1/query_range?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	var found struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil { //nolint:musttag // the same
		return nil, err
	}
	if found.Error != "" {
		return nil, fmt.Errorf("%s: %s", expr, found.Error)
	}
	var lines []line
	for _, series := range found.Data.Result {
		l := line{labels: series.Metric}
		for _, v := range series.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			if value, err := strconv.ParseFloat(text, 64); err == nil && value-value == 0 { // neither NaN nor infinite
				l.points = append(l.points, point{at, value})
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// world is everything that runs for the picture.
type world struct {
	dir        string
	prometheus string
	issuer     string
	issuers    []string
	redisPort  string
	started    []*exec.Cmd
}

// newWorld starts everything and returns when it serves.
func newWorld(ctx context.Context, dir string) (*world, error) {
	w := &world{dir: dir}
	ports, err := local.FreePorts(8)
	if err != nil {
		return nil, err
	}
	w.redisPort, w.prometheus, w.issuer = ports[6], "http://localhost:"+ports[7], "https://localhost:"+ports[0]
	if err := errors.Join(local.Certify(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")), writeClients(dir), w.write("prometheus.yml", fmt.Sprintf(`global: {scrape_interval: %s}
scrape_configs: [{job_name: grantor, static_configs: [{targets: ["localhost:%s", "localhost:%s"]}]}]
`, step, ports[2], ports[5]))); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "grantor"), "./cmd/grantor") //nolint:gosec // a folder of ours
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, err
	}
	if err := w.startRedis(ctx); err != nil {
		return nil, err
	}
	for i := range 2 {
		p := ports[3*i:]
		w.issuers = append(w.issuers, "https://localhost:"+p[0])
		err := w.start(ctx, w.path("grantor"), "serve", "--issuer", w.issuer, "--redis", "redis://localhost:"+w.redisPort,
			"--key-encryption-key-file", w.path("kek"), "--apply", w.path("clients.yaml"), "--max-staleness", "5s",
			"--tls-cert-file", w.path("cert.pem"), "--tls-key-file", w.path("key.pem"),
			"--http-listen", "localhost:"+p[0], "--grpc-listen", "localhost:"+p[1], "--ops-listen", "localhost:"+p[2], "--log-level", "error")
		if err != nil {
			return nil, err
		}
		if err := answers(ctx, "http://localhost:"+p[2]+"/readyz"); err != nil {
			return nil, err
		}
	}
	err = w.start(ctx, "prometheus", "--config.file="+w.path("prometheus.yml"), "--storage.tsdb.path="+w.path("data"),
		"--web.listen-address=localhost:"+ports[7], "--log.level=error")
	return w, errors.Join(err, answers(ctx, w.prometheus+"/-/ready"))
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) error {
	return os.WriteFile(w.path(name), []byte(content), 0o600)
}

func (w *world) startRedis(ctx context.Context) error {
	return w.start(ctx, "redis-server", "--port", w.redisPort, "--dir", w.dir, "--appendonly", "yes", "--save", "", "--loglevel", "warning")
}

// start runs a program until stop.
func (w *world) start(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // one of three, with arguments of ours
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	w.started = append(w.started, c)
	return c.Start()
}

func (w *world) stop() {
	for _, c := range w.started {
		if c.Process != nil {
			_ = c.Process.Signal(os.Interrupt)
			_ = c.Wait()
		}
	}
}

// answers waits until there is an answer of 200.
func answers(ctx context.Context, address string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		pause(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("%s does not answer", address)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
