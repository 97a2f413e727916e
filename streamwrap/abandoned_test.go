package streamwrap_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestAbandonedStreams: a client drops its stream without closing it.
func TestAbandonedStreams(t *testing.T) {
	t.Parallel()
	for _, c := range (conntest.Matrix{Transports: web, Kinds: streams}).Cases() {
		for _, opened := range []bool{true, false} {
			if !opened && c.Kind == connect.StreamTypeServer {
				continue
			}
			name := c.String() + map[bool]string{true: "/opened", false: "/unopened"}[opened]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				flush := c.Transport.HTTP2() || c.Kind == connect.StreamTypeServer
				r := newRig(t, c, setup{config: conntest.Config{Service: waiting(flush)}})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				drop(ctx, t, r, opened)
				l := r.client.Life(t)
				for range 500 {
					if l.End().Elapsed > 0 {
						break
					}
					runtime.GC()
					time.Sleep(10 * time.Millisecond)
				}
				end := l.End()
				if end.Outcome != streamwrap.Abandoned || end.Code != connect.CodeCanceled {
					t.Fatalf("client: %s", l)
				}
				if !opened {
					if n := r.Requests(); n != 0 {
						t.Errorf("%d requests", n)
					}
					return
				}
				call := r.WaitCalls(1)[0]
				if c.Kind&connect.StreamTypeClient != 0 {
					wantUnfinished(t, call)
				} else if !call.SawCancel() {
					t.Errorf("call %v", call)
				}
			})
		}
	}
}

// drop opens a stream and forgets it.
//
//go:noinline
func drop(ctx context.Context, t *testing.T, r *rig, opened bool) {
	t.Helper()
	if !opened {
		_ = r.unopened(ctx)
		return
	}
	conn := r.mustStart(ctx, t, nil)
	if r.c.Transport.HTTP2() {
		_ = conn.ResponseHeader()
	}
}

// TestAbandonedAmongOthers: streams that ended leave what watched them to later ones, of
// which only those that are dropped are abandoned.
func TestAbandonedAmongOthers(t *testing.T) {
	t.Parallel()
	const rounds = 50
	var ended [streamwrap.Panicked + 1]atomic.Int64
	i := streamwrap.NewInterceptor(streamwrap.Hooks[counter]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *counter, error) {
			return nil, &counter{}, nil
		},
		End: func(_ *counter, _ context.Context, e *streamwrap.End) { ended[e.Outcome].Add(1) },
	})
	wrapped := i.WrapStreamingClient(func(context.Context, connect.Spec) connect.StreamingClientConn {
		return newInstant(true)
	})
	open := func() connect.StreamingClientConn { return wrapped(t.Context(), newInstant(true).spec) }
	var kept, over []connect.StreamingClientConn
	for range rounds {
		first, second := open(), open()
		_, _ = first.CloseResponse(), second.CloseResponse()
		over = append(over, first, second)
		kept = append(kept, open())
		_ = open() // dropped
	}
	if n := ended[streamwrap.ClosedEarly].Load(); n != 2*rounds {
		t.Fatalf("%d streams closed early, want %d", n, 2*rounds)
	}
	abandoned := func(atLeast, most int) {
		t.Helper()
		for n := 0; n < most && (n < atLeast || ended[streamwrap.Abandoned].Load() < rounds); n++ {
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
		}
		if n := ended[streamwrap.Abandoned].Load(); n != rounds {
			t.Errorf("%d streams abandoned, want %d", n, rounds)
		}
	}
	abandoned(1, 500)
	runtime.KeepAlive(over)
	abandoned(3, 3) // what ended is dropped now, too
	for _, conn := range kept {
		_ = conn.CloseResponse()
	}
	if n := ended[streamwrap.ClosedEarly].Load(); n != 3*rounds {
		t.Errorf("%d streams closed early, want %d", n, 3*rounds)
	}
}

// countingContext counts the functions that wait for its end.
type countingContext struct {
	context.Context
	waiting atomic.Int64
}

// Value hides the standard context behind this one from package context.
func (c *countingContext) Value(any) any { return nil }

// AfterFunc is what package context then uses.
func (c *countingContext) AfterFunc(f func()) func() bool {
	c.waiting.Add(1)
	stop := context.AfterFunc(c.Context, f)
	return func() bool {
		c.waiting.Add(-1)
		return stop()
	}
}

// TestNothingStaysBehindOnTheContext: under a context that lives long, such as
// a process's, an RPC that ended leaves nothing.
func TestNothingStaysBehindOnTheContext(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
				ctx, cancel := context.WithCancel(ctx)
				_ = cancel // the RPC's end ends it
				return ctx, nil, nil
			},
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		long := &countingContext{Context: ctx}
		for range 5 {
			if reply := r.clients.Do(long, c.Kind, nil, "one", "two"); reply.Err != nil {
				t.Fatal(reply.Err)
			}
		}
		if c.Kind != connect.StreamTypeUnary {
			conn := r.mustStart(long, t, nil)
			if n := long.waiting.Load(); n == 0 {
				t.Error("nothing waits: the count is wrong")
			}
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
		}
		synctest.Wait()
		if n := long.waiting.Load(); n != 0 {
			t.Errorf("%d functions still wait for the context's end", n)
		}
	})
}

// stuck is an HTTP client with a response whose body ignores its context, and
// either ignores Close or does not even return from it.
type stuck struct {
	released chan struct{}
	inClose  bool
}

func (s stuck) Do(req *http.Request) (*http.Response, error) {
	go func() { _, _ = io.Copy(io.Discard, req.Body) }()
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, Request: req, Body: s,
		Header: http.Header{"Content-Type": {req.Header.Get("Content-Type")}},
	}, nil
}

func (s stuck) Read([]byte) (int, error) {
	<-s.released
	return 0, io.ErrUnexpectedEOF
}

func (s stuck) Close() error {
	if s.inClose {
		<-s.released
	}
	return nil
}

// TestWatchdog: a transport that ignores the context and Close holds its
// Receive, but not the End.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	for _, inClose := range []bool{false, true} {
		name := map[bool]string{false: "Close is ignored", true: "Close blocks"}[inClose]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachEnding(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, func(t *testing.T, c conntest.Case, e ending) {
				ended := make(chan time.Time, 1)
				p := newProbe(t, "client", streamwrap.Hooks[life]{
					End: func(*life, context.Context, *streamwrap.End) { ended <- time.Now() },
				})
				transport := stuck{make(chan struct{}), inClose}
				client := connect.NewClient[conntest.Message, conntest.Message](
					transport, "http://stuck.test/a.B/C", c.Option(), connect.WithInterceptors(p))
				ctx, cancel := e.context(t.Context())
				defer cancel()
				due := time.Now().Add(time.Second)
				stream := client.CallBidiStream(ctx)
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				received := make(chan error, 1)
				go func() {
					_, err := stream.Receive()
					received <- err
				}()
				select {
				case at := <-ended:
					if late := at.Sub(due); late > 1100*time.Millisecond {
						t.Errorf("End came %v after the context's", late)
					}
					code := e.code().String()
					p.wantEnd(t, code+" "+code+" 1/0")
				case <-time.After(time.Minute):
					t.Errorf("no End: %s", p.Life(t))
				}
				select {
				case err := <-received:
					t.Errorf("Receive returned %v: the transport is not stuck", err)
				default:
				}
				close(transport.released)
				e.wantErr(t, "Receive", <-received)
				time.Sleep(time.Second)
			})
		})
	}
}
