package logging

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
)

var errPanic = errors.New("logging: slog handler panicked")

// guarded is a handler whose panics do not reach the RPC. They are counted.
type guarded struct {
	slog.Handler

	panics *atomic.Int64
}

func (g *guarded) Enabled(ctx context.Context, level slog.Level) (on bool) {
	defer g.isolate()
	return g.Handler.Enabled(ctx, level)
}

func (g *guarded) Handle(ctx context.Context, r slog.Record) (err error) {
	defer func() {
		if g.caught(recover()) {
			err = errPanic
		}
	}()
	return g.Handler.Handle(ctx, r)
}

func (g *guarded) WithAttrs(attrs []slog.Attr) slog.Handler {
	derived := g
	func() {
		defer g.isolate()
		derived = &guarded{g.Handler.WithAttrs(attrs), g.panics}
	}()
	return derived
}

func (g *guarded) WithGroup(name string) slog.Handler {
	derived := g
	func() {
		defer g.isolate()
		derived = &guarded{g.Handler.WithGroup(name), g.panics}
	}()
	return derived
}

// isolate ends a panic. It is deferred around everything that is not ours: handlers,
// and the functions of options.
func (g *guarded) isolate() { g.caught(recover()) }

// caught counts a panic, if there was one.
func (g *guarded) caught(p any) bool {
	if p != nil {
		g.panics.Add(1)
	}
	return p != nil
}
