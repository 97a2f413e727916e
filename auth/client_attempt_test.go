package auth_test

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestAttempts: interceptors further out and further in are told of the repetition, and
// what they set for the attempt is sent.
func TestAttempts(t *testing.T) {
	t.Parallel()
	attempts := func(seen *[]int) connect.Interceptor {
		return streamwrap.NewInterceptor(streamwrap.Hooks[int]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *int, error) { return nil, new(int), nil },
			Attempt: func(_ *int, _ context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
				*seen = append(*seen, a.Number)
				a.Header.Set("Attempt-Header", strconv.Itoa(a.Number))
				return nil, nil
			},
		})
	}
	for _, inside := range []bool{true, false} {
		conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			var seen []int
			srv := newServer(t, c, map[string]error{"Bearer t1": auth.ErrExpired})
			outer, inner := streamwraptest.NewRecorder(), streamwraptest.NewRecorder()
			chain := []connect.Interceptor{outer, attempts(&seen), auth.NewClientInterceptor(auth.Cached(&numbered{}))}
			if inside {
				chain = append(chain, inner)
			}
			if err := c.Clients(srv.Server, connect.WithInterceptors(chain...)).Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Fatal(err)
			}
			if len(seen) == 0 || seen[len(seen)-1] != 2 {
				t.Errorf("attempts %v", seen)
			}
			calls := srv.WaitCalls(1)
			if got := calls[0].Header.Get("Attempt-Header"); got != "2" {
				t.Errorf("inside=%v: the attempt's header is %q", inside, got)
			}
			if got := len(outer.Ends()); got != 1 {
				t.Errorf("outside there were %d ends", got)
			}
			if got := len(inner.Ends()); inside && got != 2 {
				t.Errorf("inside there were %d ends: %v", got, inner)
			}
		})
	}
}

// TestAttemptThatPanics: who was told that an attempt begins is told that it ended, also
// if what is further in panics or ends the goroutine.
func TestAttemptThatPanics(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(){"panic": func() { panic(private) }, "goexit": runtime.Goexit} {
		var ended []error
		watching := streamwrap.NewInterceptor(streamwrap.Hooks[int]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *int, error) { return nil, new(int), nil },
			Attempt: func(*int, context.Context, *streamwrap.Attempt) (context.Context, func(error)) {
				return nil, func(err error) { ended = append(ended, err) }
			},
		})
		first := true
		leaving := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				if !first {
					leave()
				}
				first = false
				return next(ctx, req)
			}
		})
		conntest.Matrix{Transports: web[:1], Protocols: []conntest.Protocol{conntest.Connect}, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			srv := newServer(t, c, map[string]error{"Bearer t1": auth.ErrExpired})
			clients := c.Clients(srv.Server, connect.WithInterceptors(watching, auth.NewClientInterceptor(auth.Cached(&numbered{})), leaving))
			var got any
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { got = recover() }()
				_ = clients.Do(t.Context(), c.Kind, nil, "one")
				t.Errorf("%s: the RPC returned", name)
			}()
			<-done
			if want := map[string]any{"panic": private, "goexit": nil}[name]; got != want {
				t.Errorf("%s: recovered %v", name, got)
			}
		})
		if len(ended) != 1 || connect.CodeOf(ended[0]) != connect.CodeInternal || strings.Contains(ended[0].Error(), private) {
			t.Errorf("%s: the attempt ended with %v", name, ended)
		}
	}
}

// retrying makes an RPC again as long as it is unavailable, as retry.Interceptor does.
type retrying struct{ times int }

func (r retrying) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		for n := range r.times {
			actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: n + 1, Previous: err})
			res, err = next(actx, req)
			end(err)
			if connect.CodeOf(err) != connect.CodeUnavailable {
				break
			}
		}
		return res, err
	}
}

func (r retrying) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (r retrying) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestInsideRetries: each attempt has the token of its time.
func TestInsideRetries(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, map[string]error{"Bearer t1": auth.ErrUnavailable, "Bearer t2": auth.ErrExpired, "Bearer t3": auth.ErrUnavailable})
		chain := connect.WithInterceptors(streamwraptest.NewRecorder(), retrying{3}, auth.NewClientInterceptor(&numbered{}), streamwraptest.NewRecorder())
		if err := c.Clients(srv.Server, chain).Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if got, want := srv.tokens(), "Bearer t1,Bearer t2,Bearer t3,Bearer t4"; got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
	})
}
