package main

import "context"

func follow(ctx context.Context, n int, at []string) error        { return nil }
func measureFleet(ctx context.Context, l *lab) (*findings, error) { return nil, nil }
