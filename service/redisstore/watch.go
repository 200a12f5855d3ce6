package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Watch has begin told of every command that a client sends, in capitals, or of "PIPELINE" for several at once; the
// function that it gives is told how that ended. A read that waits for news is left out: how long it takes says nothing.
// In a Cluster a command counts for each node that it is sent to.
func Watch(client redis.UniversalClient, begin func(ctx context.Context, command string) (done func(error))) {
	h := hook{begin}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(h) })
		return
	}
	client.AddHook(h)
}

// hook implements [redis.Hook].
type hook struct {
	begin func(ctx context.Context, command string) (done func(error))
}

// DialHook implements [redis.Hook].
func (hook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error {
		if slices.Contains(command.Args(), any("block")) && command.Name() == "xread" {
			return next(ctx, command)
		}
		done := h.begin(ctx, strings.ToUpper(command.Name()))
		err := next(ctx, command)
		done(failure(err))
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		done := h.begin(ctx, "PIPELINE")
		err := next(ctx, commands)
		done(failure(err))
		return err
	}
}

// failure passes over what is no failure: the error that stands for an answer of nothing, and that of a script which Redis is
// sent only now, because it did not know it.
func failure(err error) error {
	if errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	return err
}
