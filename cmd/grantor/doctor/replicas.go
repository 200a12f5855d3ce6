package doctor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/heartbeat"
)

// checkReplicas checks what the replicas report about themselves.
func (d *doctor) checkReplicas(ctx context.Context) error {
	const silent = 3 * heartbeat.Interval
	fleet, now, err := d.store.Replicas(ctx)
	if err != nil {
		return err
	}
	d.fleet = fleet
	for _, r := range fleet {
		if now.Sub(r.StoredAt) <= silent {
			d.live = append(d.live, r)
		}
	}
	var gone []string
	for _, r := range fleet {
		age := now.Sub(r.StoredAt)
		if age > silent && !slices.ContainsFunc(d.live, func(l heartbeat.Status) bool { return replaces(&l, &r) }) {
			gone = append(gone, fmt.Sprintf("%s: %s ago", label(&r), age.Round(time.Second)))
		}
	}
	d.named("replica.silent", gone)
	d.checkf("replica.none", len(d.live) == 0, "none has reported within %s", silent)
	if len(d.live) == 0 {
		return nil
	}
	d.checkf("replica.alone", len(d.live) == 1, "%s", label(&d.live[0]))
	d.checkClocks()
	d.checkKnowledge()
	d.checkSecurity()
	d.differ("replica.versions", map[string]func(*heartbeat.Status) string{
		"version": func(r *heartbeat.Status) string { return r.Version },
	})
	names := make(map[string]func(*heartbeat.Status) string)
	for _, r := range d.live {
		for name := range r.Settings {
			names[name] = func(r *heartbeat.Status) string { return r.Settings[name] }
		}
	}
	d.differ("replica.settings", names)
	return nil
}

// replaces reports whether a replica was started in place of an old one, which crashed: two cannot share a port.
func replaces(r, old *heartbeat.Status) bool {
	return r.Host == old.Host && r.HTTP == old.HTTP && r.GRPC == old.GRPC && r.StartedAt.After(old.StartedAt)
}

// label names a replica for people: the machine and the REST port.
func label(r *heartbeat.Status) string {
	_, port, err := net.SplitHostPort(r.HTTP)
	if err != nil {
		port = r.HTTP
	}
	return fmt.Sprintf("%.100s:%.10s", r.Host, port)
}

// findings returns one labelled line per live replica for which describe is not empty.
func (d *doctor) findings(describe func(r *heartbeat.Status) string) []string {
	var found []string
	for i := range d.live {
		if text := describe(&d.live[i]); text != "" {
			found = append(found, label(&d.live[i])+": "+text)
		}
	}
	return found
}

func (d *doctor) checkClocks() {
	const off, far = time.Second, 5 * time.Second
	apart := func(above, upTo time.Duration) []string {
		return d.findings(func(r *heartbeat.Status) string {
			switch {
			case r.Ahead.Abs() <= above || r.Ahead.Abs() > upTo:
				return ""
			case r.Ahead < 0:
				return fmt.Sprintf("%s behind", r.Ahead.Abs())
			default:
				return fmt.Sprintf("%s ahead", r.Ahead)
			}
		})
	}
	d.named("replica.clock", apart(off, far))
	d.named("replica.clock-far", apart(far, 1<<63-1))
}

func (d *doctor) checkKnowledge() {
	const late = 5 * time.Second
	staleness := func(r *heartbeat.Status) time.Duration {
		reported, err := time.ParseDuration(r.Settings["max-staleness"])
		if err != nil {
			return d.maxStaleness
		}
		return reported
	}
	d.named("replica.behind", d.findings(func(r *heartbeat.Status) string {
		if r.FeedAge <= late || r.FeedAge > staleness(r) {
			return ""
		}
		return r.FeedAge.String()
	}))
	d.named("replica.stopped", d.findings(func(r *heartbeat.Status) string {
		switch {
		case r.FeedAge < 0 && r.StoredAt.Sub(r.StartedAt) > late:
			return "it has not read the feed to its end yet"
		case r.FeedAge > staleness(r):
			return r.FeedAge.String()
		}
		return ""
	}))
}

func (d *doctor) checkSecurity() {
	insecure := func(option string) []string {
		return d.findings(func(r *heartbeat.Status) string {
			if slices.Contains(r.Insecure, option) {
				return option
			}
			return ""
		})
	}
	d.named("replica.development", insecure(heartbeat.InsecureDevelopment))
	d.named("replica.plaintext", insecure(heartbeat.InsecurePlaintext))
	now := d.now()
	ends := func(from, to time.Time) []string {
		return d.findings(func(r *heartbeat.Status) string {
			if r.CertificateEnds.IsZero() || !r.CertificateEnds.After(from) || r.CertificateEnds.After(to) {
				return ""
			}
			return formatTime(r.CertificateEnds)
		})
	}
	d.named("replica.certificate", ends(now, now.Add(expiryWarning)))
	d.named("replica.certificate-ended", ends(time.Time{}, now))
}

// differ reports, for each name with several values, which replicas have which.
func (d *doctor) differ(id string, values map[string]func(*heartbeat.Status) string) {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		with := make(map[string][]string)
		for i := range d.live {
			value := values[name](&d.live[i])
			with[value] = append(with[value], label(&d.live[i]))
		}
		if len(with) < 2 {
			continue
		}
		var groups []string
		for _, value := range slices.Sorted(maps.Keys(with)) {
			groups = append(groups, fmt.Sprintf("%.100q on %s", value, strings.Join(with[value][:min(len(with[value]), maxNamed)], ", ")))
		}
		found = append(found, name+" is "+strings.Join(groups, " and "))
	}
	d.named(id, found)
}
