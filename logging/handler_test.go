package logging_test

import (
	"context"
	"log/slog"
)

// panicking is a handler that is on and panics.
type panicking struct{}

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("handler") }
func (panicking) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (panicking) WithGroup(string) slog.Handler             { panic("WithGroup") }
