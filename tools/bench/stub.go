package main

import "context"

func follow(ctx context.Context, n int, at []string) error        { return nil }
func measureMicro(ctx context.Context, l *lab) (*findings, error) { return nil, nil }
func measureScale(ctx context.Context, l *lab) (*findings, error) { return nil, nil }
func measureFleet(ctx context.Context, l *lab) (*findings, error) { return nil, nil }
