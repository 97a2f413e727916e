package retry_test

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
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// refuser is a streamwrap interceptor that refuses messages with a text, from some
// attempt on.
func refuser(text string, from int, err error) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[streamwrap.Attempt]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *streamwrap.Attempt, error) {
			a, _ := streamwrap.AttemptFromContext(ctx)
			return ctx, a, nil
		},
		Send: func(a *streamwrap.Attempt, _ context.Context, msg any) error {
			if m, ok := msg.(*conntest.Message); ok && string(m.GetValue()) == text && a.Number >= from {
				return err
			}
			return nil
		},
	})
}

// TestStreamLocalErrors: what cannot be sent is the sender's business, at once. It
// is not part of a replay, and the stream goes on without it.
func TestStreamLocalErrors(t *testing.T) {
	t.Parallel()
	codes := []connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodePermissionDenied}
	type local struct {
		msg  any
		opts []connect.ClientOption
		code connect.Code
	}
	cases := map[string]local{
		"does not marshal": {wrapperspb.String("\xff"), nil, connect.CodeInternal},
		"too large":        {conntest.Text(strings.Repeat("x", 100)), []connect.ClientOption{connect.WithSendMaxBytes(50)}, connect.CodeResourceExhausted},
	}
	for _, code := range codes {
		err := connect.NewError(code, errors.New("refused"))
		cases["refused: "+code.String()] = local{conntest.Text("refuse"), []connect.ClientOption{
			connect.WithInterceptors(refuser("refuse", 0, err)),
		}, code}
	}
	for name, test := range cases {
		for _, dead := range []bool{false, true} {
			if dead {
				name += ", attempt is dead"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
					if dead && name[:len("too large")] != "too large" && !c.Transport.HTTP2() {
						return // the server does not say that it refused
					}
					after := 2
					if dead {
						after = 1
					}
					srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, after))})
					var log events
					opts := append([]connect.ClientOption{
						connect.WithInterceptors(retry.NewInterceptor(eager(), retry.WithObserver(log.observe))),
					}, test.opts...)
					conn := openConn(t.Context(), t, c.Clients(srv, opts...), c.Kind)
					if err := conn.Send(conntest.Text("one")); err != nil {
						t.Fatal(err)
					}
					if dead {
						waitReturned(srv, 1)
						// The transport has to notice, too.
						if err := conn.Send(conntest.Text("two")); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					err := conn.Send(test.msg)
					if !dead || err != nil {
						wantCode(t, err, test.code)
						if errors.Is(err, io.EOF) {
							t.Errorf("%v is EOF, which means that Receive knows better", err)
						}
					}
					want := "one three"
					if dead {
						want = "one two three"
					}
					if !dead {
						upload(t, conn, "three")
						got, receiveErr := drain(conn)
						if receiveErr != nil {
							t.Fatalf("%v: %v", &log, receiveErr)
						}
						wantMessages(t, got, want)
						wantEvents(t, &log, "1 wire 2 committed:message success")
						return
					}
					// A dead attempt may not look at a message any more. Then it is the
					// replay that fails, which nobody waits for: Receive tells.
					upload(t, conn, "three")
					got, receiveErr := drain(conn)
					switch {
					case err != nil && receiveErr == nil:
						wantMessages(t, got, want)
					case err != nil:
						t.Errorf("Send returned %v, and Receive %v", err, receiveErr)
					default:
						wantCode(t, receiveErr, test.code)
						if n := len(retry.HistoryOf(receiveErr)); n != 2 {
							t.Errorf("%v: %d attempts, want 2: the third will not come out otherwise", &log, n)
						}
					}
				})
			})
		}
	}
}

// TestStreamRefusedReplay: an interceptor further in that refuses a message only in
// a replay ends the RPC, whatever its code: no server has said so.
func TestStreamRefusedReplay(t *testing.T) {
	t.Parallel()
	for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodePermissionDenied, connect.CodeDeadlineExceeded, connect.CodeCanceled} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 2))})
				refusal := connect.NewError(code, errors.New("refused"))
				var log events
				conn := openConn(t.Context(), t, c.Clients(srv, connect.WithInterceptors(
					retry.NewInterceptor(eager(), retry.WithObserver(log.observe)), refuser("two", 2, refusal))), c.Kind)
				upload(t, conn, "one", "two", "three")
				_, err := drain(conn)
				if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded != refusal {
					t.Errorf("error %v, want the refusal", err)
				}
				wantEvents(t, &log, "1 wire 2 local committed:failure")
				if calls := srv.Calls(); c.Transport.HTTP2() && len(calls) > 1 {
					wantTruncated(t, srv.WaitCalls(2)[1:])
				}
			})
		})
	}
}

// TestStreamRefusedHeaders: an RPC whose headers an interceptor further in refuses
// is over, and never leaves.
func TestStreamRefusedHeaders(t *testing.T) {
	t.Parallel()
	for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodePermissionDenied} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				refusal := connect.NewError(code, errors.New("refused"))
				inner := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
					Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
						return ctx, &struct{}{}, nil
					},
					Header: func(*struct{}, context.Context, http.Header) error { return refusal },
				})
				clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), inner))
				if c.Kind == connect.StreamTypeServer {
					_, err := download(t.Context(), clients, "text")
					wantCode(t, err, code)
				} else {
					conn := openConn(t.Context(), t, clients, c.Kind)
					err := conn.Send(conntest.Text("one"))
					wantCode(t, err, code)
					_, err = drain(conn)
					wantCode(t, err, code)
				}
				if n := srv.Requests(); n != 0 {
					t.Errorf("%d requests left", n)
				}
			})
		})
	}
}

// TestServerStreamRefusedMessage: CallServerStream fails, without a request.
func TestServerStreamRefusedMessage(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		refusal := connect.NewError(connect.CodeUnavailable, errors.New("refused"))
		clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), refuser("text", 0, refusal)))
		_, err := download(t.Context(), clients, "text")
		if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded != refusal {
			t.Errorf("error %v, want the refusal", err)
		}
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests left", n)
		}
	})
}

// TestStreamRetriedBeforeTheFirstSend: the headers that the user sets later reach
// the attempt that is under way by then.
func TestStreamRetriedBeforeTheFirstSend(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(hang(1, 0))})
		opened := 0
		token := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
				if opened++; opened == 1 {
					return nil, nil, connect.NewError(connect.CodeUnavailable, errors.New("no token"))
				}
				return ctx, &struct{}{}, nil
			},
		})
		p := eager()
		p.AttemptTimeout = 10 * time.Second
		conn := openConn(t.Context(), t, c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(p), token)), c.Kind)
		start := time.Now()
		done := make(chan struct{})
		var got []string
		var err error
		go func() {
			defer close(done)
			got, err = drain(conn)
		}()
		time.Sleep(5 * time.Second)
		conn.RequestHeader().Set("User", "user")
		upload(t, conn, "one")
		<-done
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, "one")
		for i, call := range srv.Calls() {
			if got := call.Header.Get("User"); got != "user" {
				t.Errorf("call %d has the header %q, want user", i+1, got)
			}
		}
		wantElapsed(t, start, 16*time.Second) // the server is hung, the attempt's time counts
	})
}

// TestStreamContextEnds: the RPC's own end is its end, in every phase, with its
// code, and without another attempt.
func TestStreamContextEnds(t *testing.T) {
	t.Parallel()
	phases := map[string]struct {
		fail     func(context.Context, int, int) error
		send     bool
		requests int
		says     string
	}{
		"before anything":    {refuseFirst(1, 0), false, 0, ""},
		"first attempt":      {hang(1, 1), true, 1, ""},
		"waiting":            {refuseFirst(1, 1), true, 1, "not now"},
		"second attempt":     {refuseThenHang, true, 2, ""},
		"after the response": {nil, true, 1, ""},
	}
	ends := map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		code connect.Code
	}{
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(15*time.Second, cancel)
			return ctx, cancel
		}, connect.CodeCanceled},
		"expired": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 15*time.Second)
		}, connect.CodeDeadlineExceeded},
	}
	for name, phase := range phases {
		for ended, end := range ends {
			if ended == "expired" && name == "waiting" {
				continue // it is not waited for
			}
			t.Run(name+"/"+ended, func(t *testing.T) {
				t.Parallel()
				uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
					if name == "after the response" && c.Kind == connect.StreamTypeClient {
						return
					}
					srv := c.Start(t, conntest.Config{})
					if phase.fail != nil {
						srv = c.Start(t, conntest.Config{Service: stubborn(phase.fail)})
					}
					p := eager()
					p.Backoff = retry.Constant(10 * time.Second)
					if name == "waiting" {
						p.Backoff = retry.Constant(time.Minute)
					}
					ctx, cancel := end.end(t.Context())
					defer cancel()
					conn := openConn(ctx, t, retrying(c, srv, p), c.Kind)
					start := time.Now()
					if phase.send {
						if err := conn.Send(conntest.Text("one")); err != nil {
							t.Fatal(err)
						}
					}
					if phase.send && !c.Transport.HTTP2() {
						if err := conn.CloseRequest(); err != nil {
							t.Fatal(err)
						}
					}
					_, err := drain(conn)
					wantCode(t, err, end.code)
					wantElapsed(t, start, 15*time.Second)
					if err == nil {
						return
					}
					if !strings.Contains(err.Error(), phase.says) {
						t.Errorf("%v does not mention %q", err, phase.says)
					}
					if err := conn.Send(conntest.Text("two")); err == nil {
						t.Error("Send after the end succeeds")
					}
					if err := conn.CloseRequest(); err != nil {
						t.Errorf("close request after the end: %v", err)
					}
					_, again := drain(conn)
					wantCode(t, again, end.code)
					time.Sleep(time.Hour)
					if n := srv.Requests(); n != phase.requests {
						t.Errorf("%d requests, want %d", n, phase.requests)
					}
					if c.Transport.HTTP2() {
						wantTruncated(t, srv.Calls())
					}
				})
			})
		}
	}
}

// refuseThenHang refuses the first call and holds the others.
func refuseThenHang(ctx context.Context, call, n int) error {
	if call == 1 {
		return refuseFirst(1, 1)(ctx, call, n)
	}
	return hang(call, 1)(ctx, call, n)
}

// TestStreamDoesNotOutlastItsDeadline: if the wait would, the last error comes at
// once.
func TestStreamDoesNotOutlastItsDeadline(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(3, 1))})
		p := eager()
		p.Backoff = retry.Constant(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		start := time.Now()
		_, err := exchange(ctx, t, retrying(c, srv, p), c.Kind, "one")
		wantCode(t, err, connect.CodeUnavailable)
		wantElapsed(t, start, 10*time.Second)
	})
}

// TestStreamContextEndsWithADeadAttempt: the user of a client stream gets the code
// of the end, though what was sent last met a server that had refused.
func TestStreamContextEndsWithADeadAttempt(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeClient}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 1))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stream := retrying(c, srv, eager()).Client.CallClientStream(ctx)
		for range 5 {
			if err := stream.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			waitReturned(srv, 1)
		}
		<-ctx.Done()
		synctest.Wait()
		_, err := stream.CloseAndReceive()
		wantCode(t, err, connect.CodeDeadlineExceeded)
	})
}

// TestStreamClosedWhileWaiting: CloseResponse interrupts the wait for the next
// attempt, and there is none.
func TestStreamClosedWhileWaiting(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 1))})
		p := eager()
		p.Backoff = retry.Constant(time.Minute)
		conn := openConn(t.Context(), t, retrying(c, srv, p), c.Kind)
		start := time.Now()
		upload(t, conn, "one")
		time.AfterFunc(10*time.Second, func() { _ = conn.CloseResponse() })
		_, err := drain(conn)
		if err == nil {
			t.Error("no error")
		}
		wantElapsed(t, start, 10*time.Second)
		time.Sleep(time.Hour)
		if n := srv.Requests(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// full is a Budget that refuses everything.
type full struct{ begun, done, ended atomic.Int64 }

func (b *full) Begin(string) bool             { b.begun.Add(1); return false }
func (*full) Extra(string) (func(), bool)     { return nil, false }
func (b *full) End(string, retry.Class, bool) { b.ended.Add(1) }
func (b *full) Done(string)                   { b.done.Add(1) }

// attemptEnds is a streamwrap interceptor that keeps how attempts ended.
func attemptEnds(ends *[]error) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
			return ctx, new(struct{}), nil
		},
		Attempt: func(*struct{}, context.Context, *streamwrap.Attempt) (context.Context, func(error)) {
			return nil, func(err error) { *ends = append(*ends, err) }
		},
	})
}

// TestStreamThrottled: a stream that the Budget refuses fails with unavailable,
// through connect's own ways to make one, and no request leaves. The attempt that was
// prepared for it ends, for observers and for interceptors further out, but is no part
// of its history.
func TestStreamThrottled(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		var log events
		var budget full
		var ends []error
		retries := retry.NewInterceptor(eager(), retry.WithBudget(&budget), retry.WithObserver(log.observe))
		clients := c.Clients(srv, connect.WithInterceptors(attemptEnds(&ends), retries))
		reply := clients.Do(t.Context(), c.Kind, nil, "one", "two")
		wantCode(t, reply.Err, connect.CodeUnavailable)
		if len(ends) != 1 || connect.CodeOf(ends[0]) != connect.CodeUnavailable || len(retry.HistoryOf(reply.Err)) != 0 {
			t.Errorf("ends of attempts %v, history %v", ends, retry.HistoryOf(reply.Err))
		}
		if !strings.HasPrefix(log.String(), "1 throttled local") {
			t.Error("events:", &log)
		}
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests, want 0", n)
		}
		if budget.begun.Load() != 1 || budget.done.Load()+budget.ended.Load() != 0 {
			t.Errorf("%d streams begun, %d done, %d attempts ended", budget.begun.Load(), budget.done.Load(), budget.ended.Load())
		}
	})
}

// ledger is a Budget that checks that everything is given back.
type ledger struct{ begun, done, lent, returned, ended atomic.Int64 }

func (b *ledger) Begin(string) bool { b.begun.Add(1); return true }

func (b *ledger) Extra(string) (func(), bool) {
	b.lent.Add(1)
	return sync.OnceFunc(func() { b.returned.Add(1) }), true
}

func (b *ledger) End(string, retry.Class, bool) { b.ended.Add(1) }
func (b *ledger) Done(string)                   { b.done.Add(1) }

func (b *ledger) check(t *testing.T, calls, attempts int64) {
	t.Helper()
	got := []int64{b.begun.Load(), b.done.Load(), b.ended.Load(), b.lent.Load(), b.returned.Load()}
	if want := []int64{calls, calls, attempts, attempts - calls, attempts - calls}; !slices.Equal(got, want) {
		t.Errorf("budget: begun, done, ended, lent, returned %v, want %v", got, want)
	}
}

// TestStreamBudgetIsBalanced: however a stream ends, its Budget hears of each
// attempt's end once and gets back what it lent.
func TestStreamBudgetIsBalanced(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fail     func(context.Context, int, int) error
		attempts int64
		finish   func(connect.StreamingClientConn)
	}{
		"success":       {refuseFirst(1, 1), 2, func(conn connect.StreamingClientConn) { _, _ = drain(conn) }},
		"failure":       {refuseFirst(9, 1), 3, func(conn connect.StreamingClientConn) { _, _ = drain(conn) }},
		"closed":        {refuseFirst(9, 1), 1, func(conn connect.StreamingClientConn) { _ = conn.CloseResponse() }},
		"first message": {refuseFirst(1, 1), 2, func(conn connect.StreamingClientConn) { _ = conn.Receive(new(conntest.Message)) }},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(test.fail)})
				var budget ledger
				conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithBudget(&budget)), c.Kind)
				upload(t, conn, "one")
				test.finish(conn)
				_ = conn.CloseResponse()
				synctest.Wait()
				budget.check(t, 1, test.attempts)
			})
		})
	}
}

// TestStreamAbandoned: a stream that its user forgets gives back its share of the
// buffers, and ends. The garbage collector works outside of bubbles.
func TestStreamAbandoned(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{Service: stubborn(refuseFirst(0, 0))})
	var log events
	clients := srv.Clients(connect.WithInterceptors(retry.NewInterceptor(eager(),
		retry.WithBufferLimits(1000, 1000), retry.WithObserver(log.observe))))
	open := func() connect.StreamingClientConn {
		conn, err := clients.Bidi.CallBidiStream(context.Background()).Conn()
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Send(conntest.Text(strings.Repeat("x", 900))); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	open()
	free, ended := false, false
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && (!free || !ended); {
		runtime.GC()
		_ = open().CloseResponse()
		free = !strings.HasSuffix(log.String(), "committed:overflow canceled")
		ended = srv.Calls()[0].Returned
		time.Sleep(time.Millisecond)
	}
	if !free {
		t.Error("the buffers of a stream that was forgotten never came back")
	}
	if !ended {
		t.Error("the server never heard that a stream was forgotten")
	}
}

// TestStreamConcurrentEnds: a stream may be closed from anywhere, while it sends more
// than may be kept and while its attempts fail. It is for the race detector.
func TestStreamConcurrentEnds(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(func(_ context.Context, call, n int) error {
			if call%3 != 0 && n >= 1 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})})
		p := eager()
		p.Backoff = retry.Constant(0)
		p.AttemptTimeout = time.Second
		clients := retrying(c, srv, p, retry.WithBufferLimits(3000, 1<<20))
		for i := range 30 {
			conn := openConn(t.Context(), t, clients, c.Kind)
			var group sync.WaitGroup
			group.Go(func() {
				text := strings.Repeat("x", 500)
				for range 10 {
					if conn.Send(conntest.Text(text)) != nil {
						break
					}
				}
				_ = conn.CloseRequest()
			})
			group.Go(func() { _, _ = drain(conn) })
			group.Go(func() {
				for range i {
					runtime.Gosched()
				}
				_ = conn.CloseResponse()
			})
			group.Wait()
		}
	})
}

// TestStreamClosedAtItsFirstMessage: the end of a stream may come from anywhere, at
// the very moment at which it commits. It is for the race detector.
func TestStreamClosedAtItsFirstMessage(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		var budget ledger
		clients := retrying(c, srv, eager(), retry.WithBudget(&budget))
		const calls = 30
		for range calls {
			conn := openConn(t.Context(), t, clients, c.Kind)
			upload(t, conn, "one")
			var group sync.WaitGroup
			group.Go(func() { _ = conn.Receive(new(conntest.Message)) })
			group.Go(func() { _ = conn.CloseResponse() })
			group.Wait()
		}
		synctest.Wait()
		budget.check(t, calls, calls)
	})
}
