package tracing

import (
	"context"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
)

// Labeler adds attributes to the metrics of one RPC. It is safe for concurrent use;
// what is added after the end of the RPC is lost. Each combination of values is a
// time series: see [WithMetricAttributes].
type Labeler struct {
	mu         sync.Mutex
	attributes []attribute.KeyValue
}

// Add adds attributes to the duration of the RPC. Of those with the same key the
// last one counts.
func (l *Labeler) Add(attributes ...attribute.KeyValue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attributes = append(l.attributes, attributes...)
}

// Get returns what was added so far.
func (l *Labeler) Get() []attribute.KeyValue { return slices.Clone(l.all()) }

// all returns what was added so far. Nobody changes it.
func (l *Labeler) all() []attribute.KeyValue {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attributes
}

type labelerKey struct{}

// LabelerFromContext returns the Labeler of the RPC to which the context belongs: of
// a handler's, or in interceptors of a client further in the client's. If no metrics
// are recorded of that RPC it is the one of the RPC in whose handler it is made; if
// there is none either, it returns one whose attributes go nowhere, and false.
func LabelerFromContext(ctx context.Context) (*Labeler, bool) {
	if l, ok := ctx.Value(labelerKey{}).(*Labeler); ok {
		return l, true
	}
	return &Labeler{}, false
}
