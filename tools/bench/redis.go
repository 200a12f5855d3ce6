package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// number gives a field of INFO.
func (s *store) number(ctx context.Context, part, field string) (float64, error) {
	text, err := s.client.Info(ctx, part).Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("INFO %s of Redis has no %s", part, field)
}

// calls is a line of INFO commandstats.
var calls = regexp.MustCompile(`(?m)^cmdstat_(\S+):calls=(\d+),`)

// commands says how often each command was called, in scripts too. What this program asks itself is left out.
func (s *store) commands(ctx context.Context) (map[string]float64, error) {
	text, err := s.client.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for _, match := range calls.FindAllStringSubmatch(text, -1) {
		times, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return nil, err
		}
		if name := match[1]; name != "info" {
			found[name] = times
		}
	}
	return found, nil
}

// size gives the number of keys and the bytes in use.
func (s *store) size(ctx context.Context) (keys, memory float64, err error) {
	n, err := s.client.DBSize(ctx).Result()
	if err != nil {
		return 0, 0, err
	}
	memory, err = s.number(ctx, "memory", "used_memory")
	return float64(n), memory, err
}

// hasUses waits until the issuer has written when secrets were used last, which it does once a minute: a key that is there
// from then on.
func (s *store) hasUses(ctx context.Context, issuer *server) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return issuer.await(ctx, func(ctx context.Context) error {
		n, err := s.client.Exists(ctx, "grantor:{grantor}:used").Result()
		if err == nil && n == 0 {
			err = errors.New("no use of a secret is written")
		}
		return err
	})
}
