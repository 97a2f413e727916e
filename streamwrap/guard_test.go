package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// foreignChain puts somebody else's conn wrapper between two of our
// interceptors, the probe outermost.
func foreignChain(p *probe) connect.Option {
	return connect.WithInterceptors(p, plain(), foreignWrapper{}, plain(), plain())
}

// plain is an interceptor of ours that does nothing.
func plain() connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, new(struct{}), nil
		},
	})
}

// foreignWrapper wraps conns as other people do.
type foreignWrapper struct{}

type (
	foreignClientConn  struct{ connect.StreamingClientConn }
	foreignHandlerConn struct{ connect.StreamingHandlerConn }
)

func (foreignWrapper) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (foreignWrapper) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return foreignClientConn{next(ctx, spec)}
	}
}

func (foreignWrapper) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, foreignHandlerConn{conn})
	}
}

// chains are the chains that the guard is tested with.
var chains = []struct {
	name  string
	chain func(*probe) connect.Option
}{
	{"alone", nil},
	{"split by a foreign wrapper", foreignChain},
	{"outside of a foreign wrapper", func(p *probe) connect.Option { return connect.WithInterceptors(p, foreignWrapper{}) }},
}

// steady is a handler that sends without a pause and receives at the same time.
func steady(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
	msg := conntest.Text(strings.Repeat("steady", 20))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for stream.Send(msg) == nil {
		}
	}()
	_, err := drain(stream.Conn())
	<-done
	return err
}

// TestCancelDuringASteadyStream is the hard case: messages arrive all the time,
// so that connect itself sees the end of the context and would end the request
// cleanly. The server must see CANCEL each time.
func TestCancelDuringASteadyStream(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cancel func(cancel func()) // with the stream's messages coming in
	}{
		{"from another goroutine", func(cancel func()) { go cancel() }},
		{"between two Receives", func(cancel func()) { cancel() }},
	} {
		for _, ch := range chains {
			streams := 200
			if ch.chain != nil {
				streams = 50
			}
			t.Run(tt.name+"/"+ch.name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					r := newRig(t, c, setup{clientChain: ch.chain, config: conntest.Config{
						Window: 8 << 10, Service: conntest.Service{Bidi: steady},
						HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)},
					}})
					for i := range streams {
						ctx, cancel := context.WithCancel(t.Context())
						conn := r.mustStart(ctx, t, nil)
						for range 1 + i%7 {
							if err := conn.Receive(&conntest.Message{}); err != nil {
								t.Fatal(err)
							}
						}
						tt.cancel(cancel)
						_, err := drain(conn)
						wantCode(t, "Receive", err, connect.CodeCanceled)
					}
					wantAllCanceled(t, r, streams)
				})
			})
		}
	}
}

// wantAllCanceled checks that n uploads ended as canceled on both sides.
func wantAllCanceled(t *testing.T, r *rig, n int) {
	t.Helper()
	calls := r.WaitCalls(n)
	synctest.Wait()
	bad := slices.DeleteFunc(calls, func(call conntest.Call) bool { return call.SawCancel() && !call.SawEOF() })
	if len(bad) > 0 {
		t.Errorf("%d of %d calls were not canceled: %v", len(bad), n, bad[0])
	}
	for _, p := range []*probe{r.client, r.server} {
		lives := slices.DeleteFunc(p.Lives(), func(l *life) bool { return l.End().Outcome == streamwrap.Canceled })
		if len(lives) > 0 {
			t.Errorf("%s: %d of %d did not end as canceled: %s", p.name, len(lives), n, lives[0])
		}
	}
}

// slowClose is a response body that takes its time to close, as one does whose
// connection is busy.
type slowClose struct{ io.ReadCloser }

func (b slowClose) Close() error {
	time.Sleep(5 * time.Millisecond)
	return b.ReadCloser.Close()
}

// TestContextEndsAfterTheReset: until the stream is reset, neither connect nor
// net/http may see that the context ended, for they would end the request.
func TestContextEndsAfterTheReset(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, func(t *testing.T, c conntest.Case, e ending) {
		// Messages come in while the body closes.
		r := newRig(t, c, setup{config: bidiService(func(_ context.Context, stream *bidiStream) error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = stream.Conn().Send(nil)
				time.Sleep(990 * time.Millisecond)
				for stream.Send(conntest.Text("steady")) == nil {
					time.Sleep(time.Millisecond)
				}
			}()
			_, err := drain(stream.Conn())
			<-done
			return err
		})})
		withoutTimeout := roundTrips(func(req *http.Request) (*http.Response, error) {
			for _, header := range []string{"Connect-Timeout-Ms", "Grpc-Timeout"} {
				req.Header.Del(header) // the server's own timer would be as fast
			}
			res, err := r.Client().Do(req)
			if err == nil {
				res.Body = slowClose{res.Body}
			}
			return res, err
		})
		r.clients = conntest.NewClients(withoutTimeout, r.URL, c.Option(), connect.WithInterceptors(r.client))
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.mustStart(ctx, t, nil)
		_, err := drain(conn)
		e.wantErr(t, "Receive", err)
		promptly(t, "Receive", due)
		wantCanceledUpload(t, r.WaitCalls(1)[0])
	})
}

// TestCancelDuringTheFirstHeaders races the cancellation against the beginning
// of the response.
func TestCancelDuringTheFirstHeaders(t *testing.T) {
	t.Parallel()
	for _, ch := range chains {
		streams := 200
		if ch.chain != nil {
			streams = 50
		}
		t.Run(ch.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{clientChain: ch.chain, config: conntest.Config{Service: waiting(true)}})
				for i := range streams {
					ctx, cancel := context.WithCancel(t.Context())
					conn := r.unopened(ctx)
					received := make(chan error)
					sendErr := conn.Send(conntest.Text("one"))
					go func() { received <- conn.Receive(&conntest.Message{}) }()
					for range i % 20 {
						runtime.Gosched()
					}
					cancel()
					wantCode(t, "Receive", <-received, connect.CodeCanceled)
					if sendErr != nil {
						t.Errorf("Send: %v", sendErr)
					}
				}
				synctest.Wait()
				time.Sleep(time.Second)
				calls := r.Calls()
				// Behind a foreign conn the guard cannot know when the response begins,
				// and connect may end the request first. The package's documentation
				// says so; connect alone ends it each time.
				exact := ch.name != "outside of a foreign wrapper"
				for _, call := range calls {
					if exact && (call.SawEOF() || !call.SawCancel()) || call.Ended.IsZero() {
						t.Errorf("call %v", call)
					}
				}
				t.Logf("%d of %d requests reached a handler", len(calls), streams)
			})
		})
	}
}

// TestCancelBeforeHeaders: a Receive that waits for the response to begin, many
// times: connect answers the end of the context with a clean end of the request.
func TestCancelBeforeHeaders(t *testing.T) {
	t.Parallel()
	const streams = 50
	for _, ch := range chains {
		t.Run(ch.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{clientChain: ch.chain, config: conntest.Config{Service: waiting(false)}})
				for i := range streams {
					ctx, cancel := context.WithCancel(t.Context())
					conn := r.mustStart(ctx, t, nil)
					r.WaitFor(func(calls []conntest.Call) bool { return len(calls) == i+1 && calls[i].Received == 1 })
					time.AfterFunc(time.Second, cancel)
					wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeCanceled)
				}
				wantAllCanceled(t, r, streams)
			})
		})
	}
}

// TestCloseRequestRacesCancel: once the context has ended, CloseRequest closes
// nothing.
func TestCloseRequestRacesCancel(t *testing.T) {
	t.Parallel()
	const streams = 60
	conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(true)}})
		late := make(map[int]bool)
		for i := range streams {
			ctx, cancel := context.WithCancel(t.Context())
			conn := r.mustStart(ctx, t, nil)
			if i%2 == 0 {
				_ = conn.ResponseHeader()
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for range i % 10 {
					runtime.Gosched()
				}
				cancel()
			})
			late[i] = ctx.Err() != nil
			if err := conn.CloseRequest(); err != nil {
				t.Errorf("CloseRequest: %v", err)
			}
			wg.Wait()
			wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeCanceled)
			r.WaitCalls(i + 1)
		}
		for i, call := range r.Calls() {
			if late[i] && call.SawEOF() || !call.SawCancel() {
				t.Errorf("CloseRequest was late: %v; call %v", late[i], call)
			}
		}
	})
}

// TestBothSidesBlocked: one cancellation releases a blocked Receive and a
// blocked Send.
func TestBothSidesBlocked(t *testing.T) {
	t.Parallel()
	for _, ch := range chains {
		t.Run(ch.name, func(t *testing.T) {
			t.Parallel()
			eachEnding(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, func(t *testing.T, c conntest.Case, e ending) {
				r := newRig(t, c, setup{clientChain: ch.chain, config: conntest.Config{Window: 64 << 10, Service: conntest.Service{
					Bidi: func(ctx context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
						_ = stream.Conn().Send(nil)
						<-ctx.Done()
						_, err := drain(stream.Conn())
						return err
					},
				}}})
				ctx, cancel := e.context(t.Context())
				defer cancel()
				due := time.Now().Add(time.Second)
				conn := r.mustStart(ctx, t, nil)
				_ = conn.ResponseHeader()
				sent := make(chan error)
				go func() {
					big := conntest.Text(strings.Repeat("x", 16<<10))
					var err error
					for err == nil {
						err = conn.Send(big)
					}
					sent <- err
				}()
				err := conn.Receive(&conntest.Message{})
				promptly(t, "Receive", due)
				if !e.deadline || !connect.IsWireError(err) {
					e.wantErr(t, "Receive", err)
					e.wantErr(t, "Send", <-sent)
					wantCanceledUpload(t, r.WaitCalls(1)[0])
				} else {
					<-sent
				}
				promptly(t, "Send", due)
			})
		})
	}
}

// TestContextOfOpen: the context that an Open hook returns ends the RPC as the
// caller's own does.
func TestContextOfOpen(t *testing.T) {
	t.Parallel()
	for _, ch := range chains {
		t.Run(ch.name, func(t *testing.T) {
			t.Parallel()
			eachEnding(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, e ending) {
				if c.Kind == connect.StreamTypeClient && !c.Transport.HTTP2() {
					return
				}
				var cancel context.CancelFunc
				r := newRig(t, c, setup{
					clientChain: ch.chain,
					client: streamwrap.Hooks[life]{
						Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
							ctx, cancel = e.context(ctx)
							return ctx, nil, nil
						},
						End: func(*life, context.Context, *streamwrap.End) { cancel() },
					},
					config: conntest.Config{Service: waiting(true)},
				})
				due := time.Now().Add(time.Second)
				var err error
				if c.Kind == connect.StreamTypeUnary {
					err = r.clients.Do(t.Context(), c.Kind, nil, "one").Err
					wantCode(t, "call", err, e.code())
				} else {
					err = r.mustStart(t.Context(), t, nil).Receive(&conntest.Message{})
					e.wantErr(t, "Receive", err)
				}
				promptly(t, "the end", due)
				call := r.WaitCalls(1)[0]
				promptly(t, "the server", due)
				if c.Kind&connect.StreamTypeClient != 0 {
					wantCanceledUpload(t, call)
				}
				synctest.Wait()
				if got := r.client.Life(t).End(); got.Code != e.code() || got.Outcome.String() != e.code().String() {
					t.Errorf("client: %s", r.client.Life(t))
				}
			})
		})
	}
}

// TestContextOfOpenOverBeforeUse: nothing is sent with a context that is over.
func TestContextOverBeforeUse(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for _, inOpen := range []bool{false, true} {
		name := map[bool]string{false: "the caller's", true: "an Open hook's"}[inOpen]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				over, cancel := context.WithCancelCause(t.Context())
				cancel(why)
				ctx := t.Context()
				var hooks streamwrap.Hooks[life]
				if inOpen {
					hooks.Open = func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
						ctx, cancel := context.WithCancelCause(ctx)
						cancel(why)
						return ctx, nil, nil
					}
				} else {
					ctx = over
				}
				r := newRig(t, c, setup{client: hooks})
				reply := r.clients.Do(ctx, c.Kind, nil, "one")
				wantCode(t, "call", reply.Err, connect.CodeCanceled)
				if c.Kind != connect.StreamTypeUnary && !errors.Is(reply.Err, why) {
					t.Errorf("call: %v is not its cause", reply.Err)
				}
				synctest.Wait()
				time.Sleep(time.Second)
				if n := r.Requests(); n != 0 {
					t.Errorf("%d requests", n)
				}
				if got := r.client.Life(t).End(); got.Outcome != streamwrap.Canceled || got.Cause != why || got.Sent != 0 {
					t.Errorf("client: %s, cause %v", r.client.Life(t), got.Cause)
				}
			})
		})
	}
}

// TestUnopenedStreamsStayUnopened: whatever is done, after the end of its
// context, to a stream on which nothing was sent, no request is made of it.
func TestUnopenedStreamsStayUnopened(t *testing.T) {
	t.Parallel()
	uses := map[string]func(*testing.T, connect.StreamingClientConn){
		"nothing": func(*testing.T, connect.StreamingClientConn) {},
		"Receive": func(t *testing.T, conn connect.StreamingClientConn) {
			wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeCanceled)
		},
		"Send": func(t *testing.T, conn connect.StreamingClientConn) {
			wantCode(t, "Send", conn.Send(conntest.Text("late")), connect.CodeCanceled)
		},
		"Send nil": func(t *testing.T, conn connect.StreamingClientConn) {
			wantCode(t, "Send", conn.Send(nil), connect.CodeCanceled)
		},
		"CloseRequest":  func(_ *testing.T, conn connect.StreamingClientConn) { _ = conn.CloseRequest() },
		"CloseResponse": func(_ *testing.T, conn connect.StreamingClientConn) { _ = conn.CloseResponse() },
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{})
				var requests atomic.Int64 // that connect made, whether or not net/http refused them
				transport := roundTrips(func(req *http.Request) (*http.Response, error) {
					requests.Add(1)
					return r.Client().Do(req)
				})
				r.clients = conntest.NewClients(transport, r.URL, c.Option(), connect.WithInterceptors(r.client))
				ctx, cancel := context.WithCancel(t.Context())
				conn := r.unopened(ctx)
				cancel()
				use(t, conn)
				time.Sleep(time.Minute)
				if n := requests.Load(); n != 0 {
					t.Errorf("%d requests", n)
				}
				r.client.wantEnd(t, "canceled canceled 0/0")
			})
		})
	}
}

// TestCancelDuringReceiveOfUnopenedStream: connect would wait for a response to
// a request that nobody made.
func TestCancelDuringReceiveOfUnopenedStream(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: h2, Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
		r := newRig(t, c, setup{})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.unopened(ctx)
		e.wantErr(t, "Receive", conn.Receive(&conntest.Message{}))
		promptly(t, "Receive", due)
		code := e.code().String()
		r.client.want(t, strings.ReplaceAll("Open Receive Received(CODE) Return(CODE) End(CODE CODE 0/0)", "CODE", code))
		time.Sleep(time.Second)
		if n := r.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestCancelDuringDial: the network swallows the dial.
func TestCancelDuringDial(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, e ending) {
		r := newRig(t, c, setup{})
		r.BlackHole(true)
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		reply := r.clients.Do(ctx, c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, e.code())
		promptly(t, "the end", due)
		synctest.Wait()
		if got := r.client.Life(t).End(); got.Outcome.String() != e.code().String() {
			t.Errorf("client: %s", r.client.Life(t))
		}
		r.BlackHole(false)
		time.Sleep(time.Second)
		if n := len(r.Calls()); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestAbandonedUploadOverHTTP1: a client that walks away in the middle of an
// HTTP/1.1 upload must not leave a request that looks complete.
func TestCanceledUploadOverHTTP1(t *testing.T) {
	t.Parallel()
	uses := map[string]func(connect.StreamingClientConn){
		"walk away":     func(connect.StreamingClientConn) {},
		"Receive":       func(conn connect.StreamingClientConn) { _ = conn.Receive(&conntest.Message{}) },
		"Send":          func(conn connect.StreamingClientConn) { _ = conn.Send(conntest.Text("late")) },
		"CloseRequest":  func(conn connect.StreamingClientConn) { _ = conn.CloseRequest() },
		"CloseResponse": func(conn connect.StreamingClientConn) { _ = conn.CloseResponse() },
	}
	h1 := []conntest.Transport{conntest.H1}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachEnding(t, conntest.Matrix{Transports: h1, Kinds: []connect.StreamType{connect.StreamTypeClient}}, func(t *testing.T, c conntest.Case, e ending) {
				r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
				ctx, cancel := e.context(t.Context())
				defer cancel()
				conn := r.mustStart(ctx, t, nil)
				<-ctx.Done()
				use(conn)
				call := r.WaitCalls(1)[0]
				if call.SawEOF() || call.ReceiveErr == nil {
					t.Errorf("the server must not see a clean end: %v", call)
				}
				code := e.code().String()
				synctest.Wait()
				r.client.wantEnd(t, code+" "+code+" 1/0")
			})
		})
	}
}

// TestAbort: from any goroutine, at any moment, what fails fails with the very
// cause, and the server is told.
func TestAbort(t *testing.T) {
	t.Parallel()
	situations := []struct {
		name  string
		kinds []connect.StreamType
		flush bool
		run   func(r *rig, ctx context.Context, abort func()) error
	}{
		{"unary", unaryKind, false, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			return r.clients.Do(ctx, r.c.Kind, nil, "one").Err
		}},
		{"during Receive before headers", uploads, false, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			conn, _ := r.start(ctx, nil)
			return conn.Receive(&conntest.Message{})
		}},
		{"during Receive after headers", streams, true, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			conn, _ := r.start(ctx, nil)
			return conn.Receive(&conntest.Message{})
		}},
		{"during Send", uploads, true, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			conn, err := r.start(ctx, nil)
			big := conntest.Text(strings.Repeat("x", 256<<10))
			for err == nil {
				err = conn.Send(big)
			}
			return err
		}},
		{"during CallServerStream", []connect.StreamType{connect.StreamTypeServer}, false, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			_, err := r.start(ctx, nil)
			return err
		}},
		{"then Receive", streams, true, func(r *rig, ctx context.Context, abort func()) error {
			conn, _ := r.start(ctx, nil)
			abort()
			return conn.Receive(&conntest.Message{})
		}},
		{"then Send", uploads, true, func(r *rig, ctx context.Context, abort func()) error {
			conn, _ := r.start(ctx, nil)
			abort()
			return conn.Send(conntest.Text("late"))
		}},
		{"then CloseRequest", uploads, true, func(r *rig, ctx context.Context, abort func()) error {
			conn, _ := r.start(ctx, nil)
			abort()
			if err := conn.CloseRequest(); err != nil {
				return err
			}
			return conn.Receive(&conntest.Message{})
		}},
	}
	for _, tt := range situations {
		for _, code := range []connect.Code{connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodePermissionDenied} {
			t.Run(tt.name+"/"+code.String(), func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: tt.kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					service := waiting(tt.flush)
					service.Client = func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
						return nil, lateReader(ctx, stream.Conn(), tt.flush)
					}
					service.Bidi = func(ctx context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
						return lateReader(ctx, stream.Conn(), tt.flush)
					}
					r := newRig(t, c, setup{config: conntest.Config{Service: service}})
					cause := connect.NewError(code, errors.New("why"))
					var enforced atomic.Bool
					abort := func() {
						call := r.client.Lives()[0].call
						enforced.Store(call.Abort(cause))
						call.Abort(connect.NewError(connect.CodeDataLoss, errors.New("second")))
					}
					start := time.Now()
					err := tt.run(r, t.Context(), abort)
					if err != error(cause) {
						t.Errorf("got %v (%T), want the cause itself", err, err)
					}
					if time.Since(start) > 1100*time.Millisecond {
						t.Errorf("took %v", time.Since(start))
					}
					if !enforced.Load() { // the second may come after the end
						t.Error("Abort: not enforced")
					}
					call := r.WaitCalls(1)[0]
					if c.Kind&connect.StreamTypeClient != 0 {
						wantCanceledUpload(t, call)
					} else if !call.SawCancel() {
						t.Errorf("call %v", call)
					}
					synctest.Wait()
					l := r.client.Life(t)
					wantOutcome := map[connect.Code]streamwrap.Outcome{
						connect.CodeCanceled: streamwrap.Canceled, connect.CodeDeadlineExceeded: streamwrap.DeadlineExceeded,
						connect.CodePermissionDenied: streamwrap.Failed,
					}[code]
					if got := l.End(); got.Err != error(cause) || got.Outcome != wantOutcome || got.Cause != error(cause) {
						t.Errorf("client: %s: %+v", l, got)
					}
					if l.call.Abort(cause) {
						t.Error("Abort after the end claims to have an effect")
					}
				})
			})
		}
	}
}

// lateReader is a handler that reads only once its context has ended.
func lateReader(ctx context.Context, conn connect.StreamingHandlerConn, flush bool) error {
	if flush {
		_ = conn.Send(nil)
	}
	<-ctx.Done()
	_, err := drain(conn)
	return err
}

// TestAbortBeforeUse: a stream that is aborted before anything was sent never
// makes a request.
func TestAbortBeforeUse(t *testing.T) {
	t.Parallel()
	for _, inOpen := range []bool{false, true} {
		name := map[bool]string{false: "after Open", true: "in Open"}[inOpen]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
				r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
					Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
						if inOpen && !call.Abort(cause) {
							t.Error("Abort has no effect")
						}
						return nil, nil, nil
					},
					Header: func(l *life, _ context.Context, _ http.Header) error {
						l.call.Abort(cause) // the last moment
						return nil
					},
				}})
				if _, err := r.start(t.Context(), nil); err != error(cause) {
					t.Errorf("Send: %v, want the cause", err)
				}
				time.Sleep(time.Second)
				if n := r.Requests(); n != 0 {
					t.Errorf("%d requests", n)
				}
				if got := r.client.Life(t).End(); got.Err != error(cause) || got.Sent != 0 {
					t.Errorf("client: %s", r.client.Life(t))
				}
			})
		})
	}
}

// TestAbortWithPlainErrors: they get a code, and stay to be found.
func TestAbortWithPlainErrors(t *testing.T) {
	t.Parallel()
	plain := errors.New("why")
	for _, tt := range []struct {
		name  string
		cause error
		code  connect.Code
		is    error
	}{
		{"plain", plain, connect.CodeUnknown, plain},
		{"nil", nil, connect.CodeCanceled, context.Canceled},
		{"deadline", context.DeadlineExceeded, connect.CodeDeadlineExceeded, context.DeadlineExceeded},
		{"EOF", io.EOF, connect.CodeUnknown, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: conntest.Config{Service: waiting(true)}})
				conn := r.mustStart(t.Context(), t, nil)
				time.AfterFunc(time.Second, func() { r.client.Life(t).call.Abort(tt.cause) })
				err := conn.Receive(&conntest.Message{})
				wantCode(t, "Receive", err, tt.code)
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("Receive: %v is not %v", err, tt.is)
				}
				wantCanceledUpload(t, r.WaitCalls(1)[0])
				synctest.Wait()
				if got := r.client.Life(t).End(); got.Err == nil || got.Code != tt.code {
					t.Errorf("client: %s", r.client.Life(t))
				}
			})
		})
	}
}

// TestAbortRacesTheEnd: whoever is first, there is one end and one result.
func TestAbortRacesTheEnd(t *testing.T) {
	t.Parallel()
	const rpcs = 30
	cause := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		calls := make(chan *streamwrap.Call, 1)
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				calls <- call
				return nil, nil, nil
			},
		}})
		for i := range rpcs {
			var wg sync.WaitGroup
			wg.Go(func() {
				call := <-calls
				for range i * 4 {
					runtime.Gosched()
				}
				call.Abort(cause)
			})
			reply := r.clients.Do(t.Context(), c.Kind, nil, "one", "two", "three")
			wg.Wait()
			synctest.Wait()
			lives := r.client.Lives()
			end := lives[len(lives)-1].End()
			if end.Err != nil && end.Err != error(cause) || (end.Err == nil) != (reply.Err == nil) {
				t.Errorf("the caller got %v, End %v", reply.Err, end.Err)
			}
		}
	})
}

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
