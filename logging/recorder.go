package logging

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// roomyRecord is how many attributes are put together without an allocation.
const roomyRecord = 40

// recorder writes records.
type recorder struct {
	config

	handler *guarded
	panics  atomic.Int64 // not reported yet
	dropped atomic.Int64 // by the sampler, not reported yet
}

func newRecorder(logger *slog.Logger, opts []Option) *recorder {
	r := &recorder{config: newConfig(opts)}
	r.handler = &guarded{logger.Handler(), &r.panics}
	return r
}

// on reports whether anything may be logged at all.
func (r *recorder) on(ctx context.Context) bool { return r.handler.Enabled(ctx, r.ceiling) }

// enabled reports whether a level is on.
func (r *recorder) enabled(ctx context.Context, level slog.Level) bool {
	return level != LevelNone && r.handler.Enabled(ctx, level)
}

// write writes a record, and reports whether the handler took it.
func (r *recorder) write(ctx context.Context, level slog.Level, message string, attrs []slog.Attr) bool {
	record := slog.NewRecord(time.Now(), level, message, 0)
	record.AddAttrs(attrs...)
	return r.handler.Handle(ctx, record) == nil
}

// decide finds the level of an RPC's record and reports whether it is to be written.
// Nothing of the record is computed before.
func (r *recorder) decide(ctx context.Context, result *Result) bool {
	result.Level = r.defaultLevel(result)
	if r.level != nil || r.keep != nil {
		return r.ask(ctx, result)
	}
	return r.enabled(ctx, result.Level)
}

// ask has the functions of options decide. They get a copy: one that escapes.
func (r *recorder) ask(ctx context.Context, result *Result) bool {
	c := *result
	if r.level != nil {
		c.Level = r.askLevel(ctx, &c)
		result.Level = c.Level
	}
	if !r.enabled(ctx, c.Level) {
		return false
	}
	if r.keep == nil || mustKeep(result) || r.askSampler(ctx, &c) {
		return true
	}
	r.dropped.Add(1)
	return false
}

// askLevel asks for the level. It stays what it is if the function panics.
func (r *recorder) askLevel(ctx context.Context, c *Result) (level slog.Level) {
	defer func() {
		if r.handler.caught(recover()) {
			level = c.Level
		}
	}()
	return r.level(ctx, c)
}

// askSampler asks the sampler. A record over which it panics is kept.
func (r *recorder) askSampler(ctx context.Context, c *Result) (keep bool) {
	defer func() {
		if r.handler.caught(recover()) {
			keep = true
		}
	}()
	return r.keep(ctx, c)
}

// askTrace asks for the ids of the trace.
func (r *recorder) askTrace(ctx context.Context) (traceID, spanID string) {
	defer r.handler.isolate()
	return r.trace(ctx)
}

// finish writes the record of an RPC, which decide was for. What was dropped since the
// last one that the handler took is said in it.
func (r *recorder) finish(ctx context.Context, level slog.Level, attrs []slog.Attr) {
	dropped, panics := r.dropped.Swap(0), r.panics.Swap(0)
	if dropped > 0 {
		attrs = append(attrs, slog.Int64("log.dropped", dropped))
	}
	if panics > 0 {
		attrs = append(attrs, slog.Int64("log.panics", panics))
	}
	if !r.write(ctx, level, r.names.finished, attrs) {
		r.dropped.Add(dropped)
		r.panics.Add(panics)
	}
}
