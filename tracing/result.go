package tracing

import (
	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

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
