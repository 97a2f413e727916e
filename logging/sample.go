package logging

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Sampler chooses which successful RPCs have a record. It is asked when the RPC has
// ended and its record's level is on, and only if the RPC was fast and is no warning:
// errors, slow calls and warnings are always kept. It must be safe for concurrent use.
type Sampler func(ctx context.Context, r *Result) bool

// WithSampling keeps only those records of successes that the sampler chooses. How many
// were dropped is said in the next record, log.dropped: together they are all there
// were. By default all are kept.
func WithSampling(keep Sampler) Option {
	if keep == nil {
		panic("logging: WithSampling: nil Sampler")
	}
	return option(func(c *config) { c.keep = keep })
}

// mustKeep reports whether a record is kept whatever the sampler says.
func mustKeep(r *Result) bool { return r.failed() || r.Slow || r.Level >= slog.LevelWarn }

// Ratio returns a sampler that keeps a share of the RPCs, from 0 to 1: those of a trace
// all or none, if there are OpenTelemetry trace ids. It panics if the share is another.
func Ratio(share float64) Sampler {
	if !(share >= 0 && share <= 1) {
		panic("logging: Ratio: share is not from 0 to 1")
	}
	seed := maphash.MakeSeed()
	return func(ctx context.Context, r *Result) bool {
		return float64(lot(ctx, seed, r)) < share*(1<<32)
	}
}

// lot returns a number that is the same for all RPCs of a trace. Trace ids are random in
// their last bytes.
func lot(ctx context.Context, seed maphash.Seed, r *Result) uint32 {
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		return binary.BigEndian.Uint32(id[12:])
	}
	if r.Call == nil {
		return rand.Uint32() //nolint:gosec // a lottery over log lines, and no secret
	}
	return uint32(maphash.Comparable(seed, r.Call.ID())) //nolint:gosec // the lower half of a hash
}

// PerProcedure returns a sampler that keeps, of each procedure and in each interval, the
// first records and then each n-th; none of those if n is 0. It costs an atomic operation.
// It panics if first or every is negative or the interval not positive.
func PerProcedure(first int, interval time.Duration, every int) Sampler {
	if first < 0 || every < 0 || first > math.MaxInt32 || interval <= 0 {
		panic("logging: PerProcedure: negative first or every, or interval that is not positive")
	}
	start := time.Now()
	var windows sync.Map // of the procedures that there are
	return func(_ context.Context, r *Result) bool {
		procedure := ""
		if r.Call != nil {
			procedure = r.Call.Procedure()
		}
		w, ok := windows.Load(procedure)
		if !ok {
			w, _ = windows.LoadOrStore(procedure, new(window))
		}
		counter, _ := w.(*window)
		n := counter.next(uint32(time.Since(start) / interval)) //nolint:gosec // only equality of intervals counts, so it may wrap
		return n <= int64(first) || every > 0 && (n-int64(first))%int64(every) == 0
	}
}

// window counts in the current interval: its number is in the upper half.
type window struct{ word atomic.Uint64 }

// next counts one more in an interval, and returns how many there are.
func (w *window) next(interval uint32) int64 {
	for {
		word := w.word.Load()
		next := word + 1
		if word>>32 != uint64(interval) || word&math.MaxUint32 == math.MaxUint32 {
			next = uint64(interval)<<32 | 1
		}
		if w.word.CompareAndSwap(word, next) {
			return int64(uint32(next)) //nolint:gosec // the lower half of the word is the count
		}
	}
}
