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

// infoField returns a numeric field of a section of INFO.
func (s *store) infoField(ctx context.Context, section, field string) (float64, error) {
	text, err := s.client.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("INFO %s has no field %s", section, field)
}

// commandCalls matches a line of INFO commandstats.
var commandCalls = regexp.MustCompile(`(?m)^cmdstat_(\S+):calls=(\d+),`)

// commands returns the number of calls of each command, including calls in scripts. INFO is left out, because this program
// calls it.
func (s *store) commands(ctx context.Context) (map[string]float64, error) {
	text, err := s.client.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for _, match := range commandCalls.FindAllStringSubmatch(text, -1) {
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

// size returns the number of keys and the bytes in use.
func (s *store) size(ctx context.Context) (keys, memory float64, err error) {
	n, err := s.client.DBSize(ctx).Result()
	if err != nil {
		return 0, 0, err
	}
	memory, err = s.infoField(ctx, "memory", "used_memory")
	return float64(n), memory, err
}

// awaitSecretUses waits until the issuer has recorded the last uses of secrets, which it does once a minute. The record is a
// key that exists from then on.
func (s *store) awaitSecretUses(ctx context.Context, issuer *server) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return issuer.Await(ctx, func(ctx context.Context) error {
		n, err := s.client.Exists(ctx, "grantor:{grantor}:used").Result()
		if err == nil && n == 0 {
			err = errors.New("no use of a secret is recorded")
		}
		return err
	})
}
