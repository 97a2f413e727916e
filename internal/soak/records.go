package soak

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// records counts the records of RPCs, instead of writing them.
type records struct{ servers, clients *atomic.Int64 }

func newRecords() records { return records{new(atomic.Int64), new(atomic.Int64)} }

var _ slog.Handler = records{}

// Enabled implements [slog.Handler].
func (records) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (r records) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		switch {
		case a.Key != "rpc.kind":
			return true
		case a.Value.String() == "client":
			r.clients.Add(1)
		default:
			r.servers.Add(1)
		}
		return false
	})
	return nil
}

// WithAttrs implements [slog.Handler].
func (r records) WithAttrs([]slog.Attr) slog.Handler { return r }

// WithGroup implements [slog.Handler].
func (r records) WithGroup(string) slog.Handler { return r }
