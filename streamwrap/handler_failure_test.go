package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// catcher is somebody else's interceptor on the outside. It notes panics that
// pass through it, and lets them pass.
type catcher struct {
	passed bool // the handler neither returned nor was left alone
	value  any
}

func (k *catcher) note(returned *bool) {
	if *returned {
		return
	}
	k.passed, k.value = true, recover()
	if k.value != nil {
		panic(k.value)
	}
}

func (k *catcher) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		returned := false
		defer k.note(&returned)
		res, err := next(ctx, req)
		returned = true
		return res, err
	}
}

func (k *catcher) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (k *catcher) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		returned := false
		defer k.note(&returned)
		err := next(ctx, conn)
		returned = true
		return err
	}
}

// TestHandlerPanics: End comes once, with the value, and the panic goes on
// untouched; http.ErrAbortHandler and Goexit are no exceptions.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	coded := connect.NewError(connect.CodeAborted, errors.New("a panic's code is internal all the same"))
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Receive Received(1) End(panicked internal 0/1)",
		connect.StreamTypeClient: "Open Receive Received(1) End(panicked internal 0/1)",
		connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) End(panicked internal 0/1)",
		connect.StreamTypeBidi:   "Open Receive Received(1) End(panicked internal 0/1)",
	}
	for _, tt := range []struct {
		name  string
		value any // nil: Goexit
	}{
		{"text", "boom"},
		{"error", coded},
		{"ErrAbortHandler", http.ErrAbortHandler},
		{"Goexit", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			boom := func() {
				if tt.value == nil {
					runtime.Goexit()
				}
				panic(tt.value)
			}
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				outside := &catcher{}
				r := newRig(t, c, setup{
					serverChain: func(p *probe) connect.HandlerOption { return connect.WithInterceptors(outside, p) },
					config: conntest.Config{TuneServer: quietly, Service: conntest.Service{
						Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
							boom()
							return nil, nil
						},
						Client: func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
							stream.Receive()
							boom()
							return nil, nil
						},
						Server: func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
							boom()
							return nil
						},
						Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
							_, _ = stream.Receive()
							boom()
							return nil
						},
					}},
				})
				reply := r.do(t, nil, "one")
				if reply.Err == nil || !isCoded(reply.Err) || connect.IsWireError(reply.Err) || errors.Is(reply.Err, io.EOF) {
					t.Errorf("client's error: %v", reply.Err)
				}
				if !outside.passed || outside.value != tt.value {
					t.Errorf("passed on: %v, %v", outside.passed, outside.value)
				}
				r.server.want(t, want[c.Kind])
				if got := r.server.Life(t).End().Panic; got != tt.value {
					t.Errorf("End.Panic = %v", got)
				}
				if got := r.client.Life(t).End(); got.Outcome != streamwrap.Failed || got.Code != connect.CodeOf(reply.Err) {
					t.Errorf("client: %s; the caller got %v", r.client.Life(t), reply.Err)
				}
			})
		})
	}
}

// TestHandlerReturnsEOF: a failure, not a clean end, on both sides.
func TestHandlerReturnsEOF(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		reply := r.do(t, conntest.WithFaults(conntest.ReturnEOF().After(1)), "one")
		wantCode(t, "call", reply.Err, connect.CodeUnknown)
		if errors.Is(reply.Err, io.EOF) || !connect.IsWireError(reply.Err) {
			t.Errorf("call: %v", reply.Err)
		}
		for _, p := range []*probe{r.client, r.server} {
			if got := p.Life(t).End(); got.Outcome != streamwrap.Failed || got.Code != connect.CodeUnknown {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
			if got := p.Life(t).String(); !strings.Contains(got, "Return(unknown)") {
				t.Errorf("%s: %s", p.name, got)
			}
		}
		if got := r.server.Life(t).End().Err; !errors.Is(got, io.EOF) {
			t.Errorf("server: End.Err %v lost the cause", got)
		}
	})
}
