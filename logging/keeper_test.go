package logging_test

import (
	"context"
	"log/slog"
	"sync"
)

// keeper is a handler that keeps records, as one does that writes them later.
type keeper struct {
	mu      sync.Mutex
	records []slog.Record
}

func (k *keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k *keeper) WithAttrs([]slog.Attr) slog.Handler       { return k }
func (k *keeper) WithGroup(string) slog.Handler            { return k }

func (k *keeper) Handle(_ context.Context, r slog.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = append(k.records, r.Clone())
	return nil
}
