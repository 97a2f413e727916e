package tracing

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
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

	// opened is what streams became that began with these facts and without a
	// protocol, because their client knew it later: the first one did.
	opened atomic.Pointer[method]
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
	attributes         attribute.Distinct
	grpc, client, live bool
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

// opened returns what is prepared for streams of clients that began without a
// protocol and a server, and now have them. It is mostly what the first one became.
func (m *methods) opened(begun *method, peer connect.Peer) *method {
	if first := begun.opened.Load(); first != nil && first.protocol == peer.Protocol && first.address == peer.Addr {
		return first
	}
	f := begun.facts
	f.protocol, f.address = peer.Protocol, peer.Addr
	found := m.find(f)
	begun.opened.CompareAndSwap(nil, found)
	return found
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
	key := seriesKey{attributes: set.Equivalent(), grpc: f.grpc(), client: f.client, live: f.live()}
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
	if !f.live() {
		return s
	}
	s.live = newLive(f.attributes(c, c.metricNames()))
	return s
}
