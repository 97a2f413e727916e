package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestHandlersOwnCallsAreOthers: a client call made with a handler's context is
// another RPC, not part of the handler's.
func TestHandlersOwnCallsAreOthers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		inside := newProbe(t, "inside", streamwrap.Hooks[life]{})
		var clients atomic.Pointer[conntest.Clients]
		r := newRig(t, c, setup{server: streamwrap.Hooks[life]{
			Received: func(_ *life, ctx context.Context, m *streamwrap.Message) error {
				if nested := clients.Swap(nil); nested != nil && m.Err == nil {
					return nested.Do(ctx, c.Kind, http.Header{conntest.CountHeader: {"1"}}, "nested").Err
				}
				return nil
			},
		}})
		clients.Store(c.Clients(r.Server, connect.WithInterceptors(inside)))
		reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		r.WaitCalls(2)
		l := inside.Life(t)
		if !l.call.IsClient() || l.call.Parent() != nil || l.End().Outcome != streamwrap.Completed {
			t.Errorf("nested: %s, parent %v", l, l.call.Parent())
		}
		for _, s := range r.server.Lives() {
			if s.call == l.call {
				t.Error("the nested call has the handler's Call")
			}
		}
	})
}

// TestHooksOwnCallsAreOthers: a call of the same procedure that a hook makes with
// its own context, as one that refreshes a token might, is another RPC.
func TestHooksOwnCallsAreOthers(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{"Open", "Send", "Header", "Receive", "Received", "Return", "End"} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				inside := newProbe(t, "inside", streamwrap.Hooks[life]{})
				var nested atomic.Pointer[conntest.Clients]
				call := func(ctx context.Context) error {
					if clients := nested.Swap(nil); clients != nil {
						header := http.Header{conntest.CountHeader: {"1"}, "Conntest-Nested": {"yes"}}
						return clients.Do(context.WithoutCancel(ctx), c.Kind, header, "nested").Err
					}
					return nil
				}
				r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
					Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
						if hook == "Open" {
							return nil, nil, call(ctx)
						}
						return nil, nil, nil
					},
					Header: func(_ *life, ctx context.Context, h http.Header) error {
						h.Set("Conntest-Outer", "yes")
						if hook == "Header" {
							return call(ctx)
						}
						return nil
					},
					Send: func(_ *life, ctx context.Context, _ any) error {
						if hook == "Send" {
							return call(ctx)
						}
						return nil
					},
					Receive: func(_ *life, ctx context.Context) error {
						if hook == "Receive" {
							return call(ctx)
						}
						return nil
					},
					Received: func(_ *life, ctx context.Context, _ *streamwrap.Message) error {
						if hook == "Received" {
							return call(ctx)
						}
						return nil
					},
					Return: func(_ *life, ctx context.Context, err error) error {
						if hook == "Return" {
							return errors.Join(err, call(ctx))
						}
						return err
					},
					End: func(_ *life, ctx context.Context, _ *streamwrap.End) {
						if hook == "End" {
							if err := call(ctx); err != nil {
								t.Errorf("nested: %v", err)
							}
						}
					},
				}})
				nested.Store(c.Clients(r.Server, connect.WithInterceptors(inside)))
				reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
				if reply.Err != nil || len(reply.Messages) != 1 || reply.Messages[0] != "one" {
					t.Errorf("%q, %v", reply.Messages, reply.Err)
				}
				r.WaitCalls(2)
				synctest.Wait()
				outer, inner := r.client.Life(t), inside.Life(t)
				if inner.call == outer.call || inner.call.Parent() != nil {
					t.Errorf("the nested RPC has call %d, parent %v; the outer one %d", inner.call.ID(), inner.call.Parent(), outer.call.ID())
				}
				for _, l := range []*life{outer, inner} {
					if end := l.End(); end.Outcome != streamwrap.Completed || end.Sent != 1 || end.Received != 1 {
						t.Errorf("%s: %s", l.name, l)
					}
				}
				for _, call := range r.Calls() {
					if nested, outer := call.Header.Get("Conntest-Nested"), call.Header.Get("Conntest-Outer"); (nested == "") != (outer == "yes") {
						t.Errorf("headers of the one reached the other: %v", call.Header)
					}
				}
			})
		})
	}
}

// repeat is somebody else's retry, which knows nothing of attempts.
type repeat struct{}

func (repeat) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		_, _ = next(ctx, req)
		return next(ctx, req)
	}
}

func (repeat) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		_ = next(ctx, spec).CloseResponse()
		return next(ctx, spec)
	}
}

func (repeat) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestForeignRetries: an interceptor of somebody else's that calls next more than
// once gets as many ends inside, and one outside.
func TestForeignRetries(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		inner := newProbe(t, "inner", streamwrap.Hooks[life]{})
		r := newRig(t, c, setup{clientChain: func(p *probe) connect.Option {
			return connect.WithInterceptors(p, repeat{}, inner)
		}})
		reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil || len(reply.Messages) != 1 {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		synctest.Wait()
		r.client.wantEnd(t, "completed 1/1")
		completed := 0
		for _, l := range inner.Lives() {
			if l.End().Outcome == streamwrap.Completed {
				completed++
			}
		}
		want := 1 // and a stream that was closed
		if c.Kind == connect.StreamTypeUnary {
			want = 2
		}
		if n := len(inner.Lives()); n != 2 || completed != want {
			t.Errorf("%d of %d completed inside", completed, n)
		}
	})
}

// TestForeignRetryCanceled: the attempt that the foreign retry settled on is
// reset like any other.
func TestForeignRetryCanceled(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: h2, Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
		inner := newProbe(t, "inner", streamwrap.Hooks[life]{})
		r := newRig(t, c, setup{
			config: conntest.Config{Service: waiting(true)},
			clientChain: func(p *probe) connect.Option {
				return connect.WithInterceptors(p, repeat{}, inner)
			},
		})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.mustStart(ctx, t, nil)
		_ = conn.ResponseHeader()
		e.wantErr(t, "Receive", conn.Receive(&conntest.Message{}))
		promptly(t, "Receive", due)
		wantCanceledUpload(t, r.WaitCalls(1)[0])
		promptly(t, "the server", due)
	})
}

// mapper is somebody else's interceptor that replaces errors.
type mapper struct{ foreignWrapper }

type mapperConn struct{ connect.StreamingClientConn }

func (mapper) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return mapperConn{next(ctx, spec)}
	}
}

func (c mapperConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	if err != nil && !errors.Is(err, io.EOF) {
		return connect.NewError(connect.CodeDataLoss, errors.New("mapped"))
	}
	return err
}

// TestForeignErrorMapping: what a foreign wrapper between ours makes of an error
// is what those outside of it see, whoever made the error.
func TestForeignErrorMapping(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	for _, tt := range []struct {
		name   string
		inner  streamwrap.Hooks[life]
		header http.Header
		opts   []connect.ClientOption
	}{
		{name: "the server's", header: conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no"))},
		{name: "connect's own", opts: []connect.ClientOption{connect.WithReadMaxBytes(1)}},
		{name: "a hook's", inner: failing("Received", func() error { return refusal })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				inner := newProbe(t, "inner", tt.inner)
				r := newRig(t, c, setup{
					clientOptions: tt.opts,
					clientChain:   func(p *probe) connect.Option { return connect.WithInterceptors(p, mapper{}, inner) },
				})
				conn := r.mustStart(t.Context(), t, tt.header)
				if c.Kind == connect.StreamTypeClient {
					_ = conn.CloseRequest()
				}
				_, err := drain(conn)
				wantCode(t, "Receive", err, connect.CodeDataLoss)
				if end := r.client.Life(t).End(); end.Code != connect.CodeDataLoss {
					t.Errorf("outer: %s", r.client.Life(t))
				}
				if end := inner.Life(t).End(); end.Code == connect.CodeDataLoss || end.Err == nil {
					t.Errorf("inner: %s", inner.Life(t))
				}
			})
		})
	}
}

// lazyConn is somebody else's conn, such as a retry's, that does all its work in
// Receive: its ResponseHeader waits for the first Receive to return, as connect
// documents for its own streams.
type lazyConn struct {
	connect.StreamingClientConn
	once     sync.Once
	received chan struct{}
}

func (c *lazyConn) Receive(msg any) error {
	defer c.once.Do(func() { close(c.received) })
	return c.StreamingClientConn.Receive(msg)
}

func (c *lazyConn) ResponseHeader() http.Header {
	<-c.received
	return c.StreamingClientConn.ResponseHeader()
}

type lazy struct {
	foreignWrapper
	conns chan *lazyConn
}

func (l lazy) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := &lazyConn{StreamingClientConn: next(ctx, spec), received: make(chan struct{})}
		l.conns <- conn
		return conn
	}
}

// TestForeignConnsMayDeferTheirHeaders until their first Receive.
func TestForeignConnsMayDeferTheirHeaders(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		foreign := lazy{conns: make(chan *lazyConn, 1)}
		r := newRig(t, c, setup{clientChain: func(p *probe) connect.Option { return connect.WithInterceptors(p, foreign) }})
		conn := r.mustStart(t.Context(), t, nil)
		_ = conn.CloseRequest()
		done := make(chan error, 1)
		go func() {
			_, err := drain(conn)
			done <- err
		}()
		select {
		case err := <-done:
			wantEOF(t, "Receive", err)
		case <-time.After(time.Minute):
			t.Error("Receive waits for the headers, which wait for Receive")
			lazily := <-foreign.conns
			lazily.once.Do(func() { close(lazily.received) })
			<-done
		}
	})
}
