package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Watch calls begin with the name of every command that a client sends, in upper case, or with "PIPELINE" for several at
// once, and calls the function that begin returns with the result. It skips blocking reads, whose duration has no meaning.
// In a Cluster a command counts once for each node to which it is sent.
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

// failure returns err, or nil for an error that is not a failure: a reply of nil, and a script that Redis did not know and
// that go-redis therefore sends next.
func failure(err error) error {
	if errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	return err
}
