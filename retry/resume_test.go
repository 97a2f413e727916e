package retry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

var downloads = conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}

// countingFrom is a server stream that counts from its request up to a limit. After each
// number that it has sent, broken may break it.
func countingFrom(limit int, broken func(call, n int) error) conntest.Service {
	var calls atomic.Int64
	return conntest.Service{Server: func(_ context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
		call := int(calls.Add(1))
		from, err := strconv.Atoi(string(req.Msg.GetValue()))
		if err != nil {
			return connect.NewError(connect.CodeInvalidArgument, err)
		}
		s.ResponseTrailer().Set("Call", strconv.Itoa(call))
		for n := from; n <= limit; n++ {
			if err := s.Send(conntest.Text(strconv.Itoa(n))); err != nil {
				return err
			}
			if err := broken(call, n); err != nil {
				return err
			}
		}
		return nil
	}}
}

// fromNext asks for what follows the last number.
func fromNext(_ context.Context, state retry.ResumeState[conntest.Message, conntest.Message]) (*conntest.Message, error) {
	last, err := strconv.Atoi(string(state.Last.GetValue()))
	if err != nil {
		return nil, err
	}
	return conntest.Text(strconv.Itoa(last + 1)), nil
}

func resuming(f retry.ResumeFunc[conntest.Message, conntest.Message]) retry.Option {
	return retry.WithResume(conntest.ServerProcedure, f)
}

func numbers(from, to int) []string {
	var texts []string
	for n := from; n <= to; n++ {
		texts = append(texts, strconv.Itoa(n))
	}
	return texts
}

// TestResume: a stream that breaks again and again, by errors of the server and by
// resets, is one stream to its user: each message once, in order.
func TestResume(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: countingFrom(100, func(_, n int) error {
			switch {
			case n%20 == 10:
				panic(http.ErrAbortHandler)
			case n%20 == 0 && n < 100:
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})})
		var log events
		var states []string
		resume := func(ctx context.Context, state retry.ResumeState[conntest.Message, conntest.Message]) (*conntest.Message, error) {
			states = append(states, fmt.Sprintf("%s:%s:%d:%d", state.Original.GetValue(), state.Last.GetValue(), state.Received, state.Attempt))
			if state.Failure == nil {
				t.Error("no failure")
			}
			return fromNext(ctx, state)
		}
		start := time.Now()
		got, err := download(t.Context(), retrying(c, srv, eager(), resuming(resume), retry.WithObserver(log.observe)), "1")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, numbers(1, 100)...)
		if n := strings.Count(log.String(), "resumed"); n != 9 {
			t.Errorf("resumed %d times, want 9: %v", n, &log)
		}
		// A reset may overtake messages on their way, but not on these transports.
		wantMessages(t, states, "1:10:10:1", "1:20:20:1", "1:30:30:1", "1:40:40:1", "1:50:50:1",
			"1:60:60:1", "1:70:70:1", "1:80:80:1", "1:90:90:1")
		wantElapsed(t, start, 9*time.Second)
	})
}

// TestResumeWithRetries: each stream has retries of its own until its first message.
func TestResumeWithRetries(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		service := countingFrom(9, func(_, n int) error {
			if n%3 == 0 && n < 9 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})
		count, calls := service.Server, 0
		service.Server = func(ctx context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if calls++; calls%2 == 1 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return count(ctx, req, s)
		}
		srv := c.Start(t, conntest.Config{Service: service})
		var log events
		got, err := download(t.Context(), retrying(c, srv, eager(), resuming(fromNext), retry.WithObserver(log.observe)), "1")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, numbers(1, 9)...)
		wantEvents(t, &log, "1 wire 2 committed:message wire 1 resumed wire 2 committed:message wire 1 resumed wire 2 committed:message success")
	})
}

// TestResumeHeaders: those that the user set are kept, and the trailers are of the
// last stream.
func TestResumeHeaders(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: countingFrom(2, func(call, _ int) error {
			if call == 1 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req := connect.NewRequest(conntest.Text("1"))
		req.Header().Set("User", "user")
		req.Header()["List"] = []string{"a", "b"}
		stream, err := retrying(c, srv, eager(), resuming(fromNext)).Server.CallServerStream(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for stream.Receive() {
		}
		if err := errors.Join(stream.Err(), stream.Close()); err != nil {
			t.Fatal(err)
		}
		if got := stream.ResponseTrailer().Get("Call"); got != "2" {
			t.Errorf("trailers of call %q, want 2", got)
		}
		calls := srv.Calls()
		for i, call := range calls {
			if got := fmt.Sprint(call.Header.Get("User"), call.Header.Values("List")); got != "user[a b]" {
				t.Errorf("call %d has the headers %s", i, got)
			}
		}
		timeout := func(i int) string {
			return calls[i].Header.Get("Connect-Timeout-Ms") + calls[i].Header.Get("Grpc-Timeout")
		}
		if len(calls) != 2 || timeout(0) == timeout(1) || timeout(1) == "" {
			t.Errorf("timeouts of calls %v are not those of their time", calls)
		}
	})
}

// TestResumeEnds: how a resumable stream ends other than well.
func TestResumeEnds(t *testing.T) {
	t.Parallel()
	refused := connect.NewError(connect.CodeFailedPrecondition, errors.New("cursor is too old"))
	once := func(code connect.Code) func(int, int) error {
		return func(_, n int) error {
			if n == 2 {
				return connect.NewError(code, errNotNow)
			}
			return nil
		}
	}
	always := func(int, int) error { return connect.NewError(connect.CodeUnavailable, errNotNow) }
	cases := map[string]struct {
		broken func(call, n int) error
		resume retry.ResumeFunc[conntest.Message, conntest.Message]
		opts   []retry.Option
		want   []string
		code   connect.Code // 0: it ends well
		after  time.Duration
	}{
		"complete": {once(connect.CodeUnavailable), func(context.Context, retry.ResumeState[conntest.Message, conntest.Message]) (*conntest.Message, error) {
			return nil, fmt.Errorf("wrapped: %w", retry.ErrStreamComplete)
		}, nil, numbers(1, 2), 0, time.Second},
		"user refuses": {once(connect.CodeUnavailable), func(context.Context, retry.ResumeState[conntest.Message, conntest.Message]) (*conntest.Message, error) {
			return nil, refused
		}, nil, numbers(1, 2), connect.CodeFailedPrecondition, time.Second},
		"code is not listed": {once(connect.CodeInternal), fromNext, nil, numbers(1, 2), connect.CodeInternal, 0},
		"server forbids": {func(_, n int) error {
			if n == 2 {
				return retry.NoRetry(connect.NewError(connect.CodeUnavailable, errNotNow))
			}
			return nil
		}, fromNext, nil, numbers(1, 2), connect.CodeUnavailable, 0},
		"server asks": {func(_, n int) error {
			if n == 2 {
				return retry.Pushback(connect.NewError(connect.CodeUnavailable, errNotNow), 7*time.Second)
			}
			return nil
		}, fromNext, nil, numbers(1, 5), 0, 7 * time.Second},
		"server asks for too much": {func(_, n int) error {
			if n == 2 {
				return retry.Pushback(connect.NewError(connect.CodeUnavailable, errNotNow), time.Hour)
			}
			return nil
		}, fromNext, nil, numbers(1, 2), connect.CodeUnavailable, 0},
		"budget": {always, fromNext, []retry.Option{retry.WithBudget(&few{left: 2})}, numbers(1, 3), connect.CodeUnavailable, 2 * time.Second},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: countingFrom(5, test.broken)})
				opts := test.opts
				if name == "budget" {
					opts = []retry.Option{retry.WithBudget(&few{left: 2})}
				}
				start := time.Now()
				got, err := download(t.Context(), retrying(c, srv, eager(), append(opts, resuming(test.resume))...), "1")
				wantMessages(t, got, test.want...)
				if test.code != 0 {
					wantCode(t, err, test.code)
				} else if err != nil {
					t.Error(err)
				}
				wantElapsed(t, start, test.after)
			})
		})
	}
}

// TestResumeFruitless: five resumptions without a message are enough. Messages in
// between start the count again.
func TestResumeFruitless(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		service := countingFrom(100, func(_, n int) error {
			if n%10 == 0 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})
		count, down := service.Server, false
		service.Server = func(ctx context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if down = down || string(req.Msg.GetValue()) == "81"; down {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return count(ctx, req, s)
		}
		srv := c.Start(t, conntest.Config{Service: service})
		p := eager()
		p.MaxAttempts = 1
		p.Backoff = nil
		var log events
		var attempts []string
		got, err := download(t.Context(), retrying(c, srv, p, retry.WithObserver(log.observe), retry.WithBudget(retry.Unlimited()),
			resuming(func(ctx context.Context, state retry.ResumeState[conntest.Message, conntest.Message]) (*conntest.Message, error) {
				attempts = append(attempts, strconv.Itoa(state.Attempt))
				return fromNext(ctx, state)
			})), "1")
		wantMessages(t, got, numbers(1, 80)...)
		wantCode(t, err, connect.CodeUnavailable)
		wantMessages(t, attempts, strings.Fields("1 1 1 1 1 1 1 1 2 3 4 5")...)
		if n := srv.Requests(); n != 13 {
			t.Errorf("%d requests, want 13", n)
		}
	})
}

// TestResumeIsInterrupted: closing the stream, or the end of its context, ends the
// wait for another one.
func TestResumeIsInterrupted(t *testing.T) {
	t.Parallel()
	interrupts := map[string]struct {
		interrupt func(cancel context.CancelFunc, stream *connect.ServerStreamForClient[conntest.Message])
		code      connect.Code
	}{
		"closed": {func(_ context.CancelFunc, stream *connect.ServerStreamForClient[conntest.Message]) {
			_ = stream.Close()
		}, connect.CodeUnavailable},
		"canceled": {func(cancel context.CancelFunc, _ *connect.ServerStreamForClient[conntest.Message]) { cancel() }, connect.CodeCanceled},
	}
	for name, test := range interrupts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: countingFrom(5, func(_, n int) error {
					if n == 2 {
						return connect.NewError(connect.CodeUnavailable, errNotNow)
					}
					return nil
				})})
				p := eager()
				p.Backoff = retry.Constant(time.Minute)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				stream, err := retrying(c, srv, p, resuming(fromNext)).Server.CallServerStream(ctx, connect.NewRequest(conntest.Text("1")))
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(10*time.Second, func() { test.interrupt(cancel, stream) })
				n := 0
				for stream.Receive() {
					n++
				}
				wantCode(t, stream.Err(), test.code)
				if !strings.Contains(fmt.Sprint(stream.Err()), errNotNow.Error()) {
					t.Errorf("%v does not mention why the stream broke", stream.Err())
				}
				wantElapsed(t, start, 10*time.Second)
				if n != 2 {
					t.Errorf("%d messages, want 2", n)
				}
				time.Sleep(time.Hour)
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		})
	}
}

// TestResumeDoesNotOutlastItsDeadline: if the wait would, the stream's error comes at
// once, as with retries.
func TestResumeDoesNotOutlastItsDeadline(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: countingFrom(5, func(_, n int) error {
			if n == 2 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})})
		p := eager()
		p.Backoff = retry.Constant(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		got, err := download(ctx, retrying(c, srv, p, resuming(fromNext)), "1")
		wantMessages(t, got, numbers(1, 2)...)
		wantCode(t, err, connect.CodeUnavailable)
		wantElapsed(t, start, 0)
	})
}

// TestResumeBackoffGrows: backoffs that depend on the delay before get it.
func TestResumeBackoffGrows(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		service := countingFrom(1, func(int, int) error { return connect.NewError(connect.CodeUnavailable, errNotNow) })
		count, calls := service.Server, 0
		service.Server = func(ctx context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if calls++; calls > 1 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return count(ctx, req, s)
		}
		srv := c.Start(t, conntest.Config{Service: service})
		var delays []string
		p := eager()
		p.Codes = []connect.Code{connect.CodeUnavailable}
		p.Backoff = func(n int, previous time.Duration) time.Duration {
			delays = append(delays, fmt.Sprint(n, previous))
			return time.Duration(n) * time.Second
		}
		ctx := retry.WithPolicy(t.Context(), p)
		_, err := download(ctx, retrying(c, srv, eager(), resuming(fromNext), retry.WithBudget(&few{left: 1 + 2 + 1 + 2})), "1")
		wantCode(t, err, connect.CodeUnavailable)
		synctest.Wait()
		// A resumption, two retries of its stream, and again.
		wantMessages(t, delays[:4], "1 0s", "1 0s", "2 1s", "2 1s")
	})
}
