package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
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
