// Command board draws the dashboard of deploy/grafana as it looks after a real run. It starts a Redis, two replicas of the
// issuer and a Prometheus, puts load on the replicas, evaluates the expressions of every panel with Prometheus, and draws
// the results:
//
//	cd tools/board && GOWORK=off go run . -for 5m -o ../../docs/board.svg
//
// It runs in its own folder and needs go, redis-server and prometheus on the PATH. Its tests check the dashboard, the
// alert rules and the table of metrics in docs/telemetry.md against the metrics of a running issuer. It is a separate
// module so that what they parse expressions with is not a requirement of Grantor.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// root is the root of the repository, relative to the folder of this command.
const root = "../.."

func main() {
	length := flag.Duration("for", 5*time.Minute, "`time` to put load on the issuer")
	out := flag.String("o", root+"/docs/board.svg", "`file` to write the picture to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *length, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, length time.Duration, out string) (err error) {
	content, err := os.ReadFile(root + "/deploy/grafana/grantor.json")
	if err != nil {
		return err
	}
	var b dashboard
	if err := json.Unmarshal(content, &b); err != nil { //nolint:musttag // the field names differ only in case
		return err
	}
	dir, err := os.MkdirTemp("", "board")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := startDeployment(ctx, dir)
	if err != nil {
		return err
	}
	defer d.stop()
	began := time.Now()
	if err := d.load(ctx, length); err != nil {
		return err
	}
	ended := time.Now()
	picture, err := draw(&b, began, ended, func(expr string) ([]line, error) { return d.query(ctx, expr, began, ended) })
	if err != nil {
		return err
	}
	return os.WriteFile(out, picture, 0o600)
}

// dashboard is the part of a Grafana dashboard that is drawn.
type dashboard struct {
	Title  string
	Panels []panel
}

// panel is the part of a panel that is drawn.
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
