package streamwrap

import (
	"context"
	"net/http"
)

// table is a Hooks[S] with its S forgotten, so that interceptors of different
// types can share a stream. A pointer fits into an interface without an
// allocation, and the assertion back costs a comparison.
type table struct {
	open     func(ctx context.Context, call *Call) (context.Context, any, error)
	header   func(s any, ctx context.Context, h http.Header) error
	send     func(s any, ctx context.Context, msg any) error
	sent     func(s any, ctx context.Context, m *Message)
	receive  func(s any, ctx context.Context) error
	received func(s any, ctx context.Context, m *Message) error
	ret      func(s any, ctx context.Context, err error) error
	end      func(s any, ctx context.Context, e *End)
	attempt  func(s any, ctx context.Context, a *Attempt) (context.Context, func(error))
	has      events
}

// events is a set of hooks.
type events uint8

const (
	hasHeader events = 1 << iota
	hasSend
	hasSent
	hasReceive
	hasReceived
	hasTiming
)

func newTable[S any](h Hooks[S]) *table {
	t := &table{
		open: func(ctx context.Context, call *Call) (context.Context, any, error) {
			octx, s, err := h.Open(ctx, call)
			if s == nil { // a nil *S in an interface would not be nil
				return octx, nil, err
			}
			return octx, s, err
		},
	}
	if f := h.Header; f != nil {
		t.header = func(s any, ctx context.Context, h http.Header) error { return f(s.(*S), ctx, h) }
		t.has |= hasHeader
	}
	if f := h.Send; f != nil {
		t.send = func(s any, ctx context.Context, msg any) error { return f(s.(*S), ctx, msg) }
		t.has |= hasSend
	}
	if f := h.Sent; f != nil {
		t.sent = func(s any, ctx context.Context, m *Message) { f(s.(*S), ctx, m) }
		t.has |= hasSent
	}
	if f := h.Receive; f != nil {
		t.receive = func(s any, ctx context.Context) error { return f(s.(*S), ctx) }
		t.has |= hasReceive
	}
	if f := h.Received; f != nil {
		t.received = func(s any, ctx context.Context, m *Message) error { return f(s.(*S), ctx, m) }
		t.has |= hasReceived
	}
	if f := h.Return; f != nil {
		t.ret = func(s any, ctx context.Context, err error) error { return f(s.(*S), ctx, err) }
	}
	if f := h.End; f != nil {
		t.end = func(s any, ctx context.Context, e *End) { f(s.(*S), ctx, e) }
	}
	if f := h.Attempt; f != nil {
		t.attempt = func(s any, ctx context.Context, a *Attempt) (context.Context, func(error)) {
			return f(s.(*S), ctx, a)
		}
	}
	if h.Timing {
		t.has |= hasTiming
	}
	return t
}
