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

// lookAtReplicas looks at what the replicas tell about themselves.
func (d *doctor) lookAtReplicas(ctx context.Context) error {
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
	d.checkf("replica.none", len(d.live) == 0, "none has told anything within %s", silent)
	if len(d.live) == 0 {
		return nil
	}
	d.checkf("replica.alone", len(d.live) == 1, "%s", label(&d.live[0]))
	d.lookAtClocks()
	d.lookAtKnowledge()
	d.lookAtSecurity()
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

// replaces reports whether a replica was started anew in place of the old one, which crashed: two cannot have one port.
func replaces(r, old *heartbeat.Status) bool {
	return r.Host == old.Host && r.HTTP == old.HTTP && r.GRPC == old.GRPC && r.StartedAt.After(old.StartedAt)
}

// label names a replica to people: the machine and the REST port.
func label(r *heartbeat.Status) string {
	_, port, err := net.SplitHostPort(r.HTTP)
	if err != nil {
		port = r.HTTP
	}
	return fmt.Sprintf("%.100s:%.10s", r.Host, port)
}

// those labels the live replicas of which it is so, with what it says about each.
func (d *doctor) those(so func(r *heartbeat.Status) string) []string {
	var found []string
	for i := range d.live {
		if text := so(&d.live[i]); text != "" {
			found = append(found, label(&d.live[i])+": "+text)
		}
	}
	return found
}

func (d *doctor) lookAtClocks() {
	const off, far = time.Second, 5 * time.Second
	apart := func(least, most time.Duration) []string {
		return d.those(func(r *heartbeat.Status) string {
			switch {
			case r.Ahead.Abs() <= least || r.Ahead.Abs() > most:
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

func (d *doctor) lookAtKnowledge() {
	const late = 5 * time.Second
	staleness := func(r *heartbeat.Status) time.Duration {
		most, err := time.ParseDuration(r.Settings["max-staleness"])
		if err != nil {
			return d.maxStaleness
		}
		return most
	}
	d.named("replica.behind", d.those(func(r *heartbeat.Status) string {
		if r.FeedAge <= late || r.FeedAge > staleness(r) {
			return ""
		}
		return r.FeedAge.String()
	}))
	d.named("replica.stopped", d.those(func(r *heartbeat.Status) string {
		switch {
		case r.FeedAge < 0 && r.StoredAt.Sub(r.StartedAt) > late:
			return "it has not read the feed to its end yet"
		case r.FeedAge > staleness(r):
			return r.FeedAge.String()
		}
		return ""
	}))
}

func (d *doctor) lookAtSecurity() {
	insecure := func(option string) []string {
		return d.those(func(r *heartbeat.Status) string {
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
		return d.those(func(r *heartbeat.Status) string {
			if r.CertificateEnds.IsZero() || !r.CertificateEnds.After(from) || r.CertificateEnds.After(to) {
				return ""
			}
			return instant(r.CertificateEnds)
		})
	}
	d.named("replica.certificate", ends(now, now.Add(soonEnds)))
	d.named("replica.certificate-ended", ends(time.Time{}, now))
}

// differ notes for each name that has several values which replicas have which.
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
			groups = append(groups, fmt.Sprintf("%.100q on %s", value, strings.Join(with[value][:min(len(with[value]), mostNamed)], ", ")))
		}
		found = append(found, name+" is "+strings.Join(groups, " and "))
	}
	d.named(id, found)
}
