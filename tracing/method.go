package tracing

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// maxMethods is how many procedures, servers and protocols have attributes and
// series of their own. It is below the SDK's limit of attribute sets, since each
// has some. RPCs beyond it are counted together.
const maxMethods = 1000

// method is what is prepared for RPCs that have their facts in common.
type method struct {
	facts

	name       string
	start      []trace.SpanStartOption
	attributes []attribute.KeyValue // in start
	late       []attribute.KeyValue // of spans that began without a protocol
	series     *series
}

// series is what is prepared for the metrics of RPCs.
type series struct {
	facts

	live    *live // nil: these are not streams
	results [results]atomic.Pointer[result]
}

// methods is a cache that is read without a lock.
type methods struct {
	config *config
	known  atomic.Pointer[map[facts]*method]
	all    atomic.Pointer[[]*series] // that streams have

	mu     sync.Mutex // of those who write
	series map[seriesKey]*series
}

// seriesKey tells series apart. Methods that metrics do not tell apart share one.
type seriesKey struct {
	attributes   attribute.Distinct
	grpc, client bool
}

func newMethods(c *config) *methods {
	m := &methods{config: c, series: make(map[seriesKey]*series)}
	m.known.Store(&map[facts]*method{})
	m.all.Store(&[]*series{})
	return m
}

// find returns what is prepared for RPCs.
func (m *methods) find(f facts) *method {
	if found, ok := (*m.known.Load())[f]; ok {
		return found
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.known.Load()
	if found, ok := known[f]; ok {
		return found
	}
	if len(known) < maxMethods {
		return m.add(known, newMethod(m.config, f, m.seriesOf(f)))
	}
	other := facts{procedure: otherMethod, protocol: f.protocol, kind: f.kind, client: f.client}
	overflow, ok := known[other]
	if !ok {
		overflow = m.add(known, newMethod(m.config, other, m.seriesOf(other)))
	}
	return newMethod(m.config, f, overflow.series)
}

// add replaces the map by one with another method. The caller holds the mutex.
func (m *methods) add(known map[facts]*method, added *method) *method {
	next := maps.Clone(known)
	next[added.facts] = added
	m.known.Store(&next)
	return added
}

// seriesOf returns the series of methods. The caller holds the mutex.
func (m *methods) seriesOf(f facts) *series {
	set := attribute.NewSet(f.attributes(m.config, m.config.metricNames())...)
	key := seriesKey{attributes: set.Equivalent(), grpc: f.grpc(), client: f.client}
	if s, ok := m.series[key]; ok {
		return s
	}
	s := newSeries(m.config, f)
	m.series[key] = s
	if s.live != nil {
		all := append(slices.Clone(*m.all.Load()), s)
		m.all.Store(&all)
	}
	return s
}

func newMethod(c *config, f facts, s *series) *method {
	m := &method{facts: f, name: f.name(), series: s}
	m.attributes = append(f.attributes(c, c.names), f.details(c)...)
	kind := trace.SpanKindServer
	if f.client {
		kind = trace.SpanKindClient
	}
	m.start = []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(m.attributes...)}
	if f.client && f.streams() {
		unknown := f
		unknown.protocol, unknown.address = "", ""
		m.late = without(m.attributes, append(unknown.attributes(c, c.names), unknown.details(c)...))
	}
	return m
}

// without returns the attributes that are not among others.
func without(attributes, others []attribute.KeyValue) []attribute.KeyValue {
	var rest []attribute.KeyValue
	has := attribute.NewSet(others...)
	for _, a := range attributes {
		if !has.HasValue(a.Key) {
			rest = append(rest, a)
		}
	}
	return rest
}

func newSeries(c *config, f facts) *series {
	s := &series{facts: f}
	if !f.streams() || f.protocol == "" {
		return s
	}
	s.live = newLive(f.attributes(c, c.metricNames()))
	return s
}

// recordOptions returns the options that record with attributes.
func recordOptions(attributes []attribute.KeyValue, more ...attribute.KeyValue) []metric.RecordOption {
	all := slices.Concat(attributes, more) // NewSet sorts it
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(all...))}
}

// result returns what is prepared for RPCs that ended in the same way.
func (s *series) result(c *config, e ending) *result {
	if r := s.results[e].Load(); r != nil {
		return r
	}
	r := newResult(c, &s.facts, e)
	s.results[e].Store(r)
	return r
}

// ending is how an RPC ended, as its attributes tell: a code, 0 for success, or
// one of those below.
type ending uint8

const (
	panicked    = ending(lastCode) + 1 + iota
	aborted     // by http.ErrAbortHandler
	closed      // by a client before its end, or dropped
	notModified // the client has the response
	unserved    // nobody knows the code
	results
)

// code returns the code of an ending.
func (e ending) code() connect.Code {
	switch e {
	case panicked, aborted:
		return connect.CodeInternal
	case closed:
		return connect.CodeCanceled
	case notModified:
		return 0
	case unserved:
		return connect.CodeUnknown
	default:
		return connect.Code(e)
	}
}

// failed reports whether it is an error for one of the sides.
func (e ending) failed(client bool) bool {
	switch e {
	case 0, closed, notModified, aborted, unserved:
		return false
	default:
		return client || failsServer(e.code())
	}
}

// result is what is prepared for RPCs that ended in the same way.
type result struct {
	span    []attribute.KeyValue
	metric  []attribute.KeyValue
	options []metric.RecordOption // of metric

	oldMetric  []attribute.KeyValue
	oldOptions []metric.RecordOption
}

func newResult(c *config, f *facts, e ending) *result {
	r := &result{span: f.ending(c, e, c.names)}
	if c.names&newNames != 0 {
		r.metric = append(f.attributes(c, newNames), f.ending(c, e, newNames)...)
		r.options = recordOptions(r.metric)
	}
	if c.names&oldNames != 0 {
		r.oldMetric = append(f.attributes(c, oldNames), f.ending(c, e, oldNames)...)
		r.oldOptions = recordOptions(r.oldMetric)
	}
	return r
}

// ending returns the attributes of an ending, with one or two generations of names.
func (f *facts) ending(c *config, e ending, names conventions) []attribute.KeyValue {
	var attributes []attribute.KeyValue
	code := e.code()
	if names&oldNames != 0 {
		switch {
		case f.grpc():
			attributes = append(attributes, oldGRPCStatusKey.Int64(int64(code)))
		case code != 0:
			attributes = append(attributes, oldConnectCodeKey.String(code.String()))
		}
	}
	if names&newNames == 0 {
		return c.filtered(attributes)
	}
	if e != unserved {
		attributes = append(attributes, statusCodeKey.String(c.spell(code)))
	}
	switch {
	case e == notModified:
		attributes = append(attributes, httpStatusKey.Int(304))
	case e == panicked:
		attributes = append(attributes, errorTypeKey.String("panic"))
	case e.failed(f.client):
		attributes = append(attributes, errorTypeKey.String(c.spell(code)))
	}
	return c.filtered(attributes)
}
