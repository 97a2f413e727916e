package retry_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

var notNow = conntest.Fail(connect.CodeUnavailable, "not now")

// unary is the kind of most tests here.
var unary = []connect.StreamType{connect.StreamTypeUnary}

// inner is an interceptor inside of the retries: it sees every attempt.
type inner struct {
	unary  func(context.Context, connect.AnyRequest, connect.UnaryFunc) (connect.AnyResponse, error)
	stream func(context.Context, connect.Spec, connect.StreamingClientFunc) connect.StreamingClientConn
}

func (i inner) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	if i.unary == nil {
		return next
	}
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return i.unary(ctx, req, next)
	}
}

func (i inner) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	if i.stream == nil {
		return next
	}
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return i.stream(ctx, spec, next)
	}
}

func (inner) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// headersOf returns what all calls so far had in a header.
func headersOf(calls []conntest.Call, name string) []string {
	var all []string
	for _, call := range calls {
		all = append(all, strings.Join(call.Header.Values(name), ","))
	}
	return all
}

// timeoutOf returns the time that a request says is left; 0: it does not.
func timeoutOf(tb testing.TB, h http.Header) time.Duration {
	tb.Helper()
	if text := h.Get("Connect-Timeout-Ms"); text != "" {
		millis, err := strconv.Atoi(text)
		if err != nil {
			tb.Fatal(err)
		}
		return time.Duration(millis) * time.Millisecond
	}
	text := h.Get("Grpc-Timeout")
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil {
		tb.Fatal(err)
	}
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}
	return time.Duration(n) * units[text[len(text)-1]]
}

// TestAbandonedAttemptsShareNothing: HTTP/2 writes the headers of a request on a
// goroutine of its own, which may not have begun when the attempt is given up.
// Nobody may write to the same map then. It is the race detector that fails.
func TestAbandonedAttemptsShareNothing(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		const rpcs = 60
		for range rpcs {
			srv.Inject(conntest.Block())
		}
		p := eager()
		p.AttemptTimeout = 50 * time.Millisecond
		p.Backoff = retry.Constant(0)
		add := inner{unary: func(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
			req.Header().Add("X-Inner", "a")
			return next(ctx, req)
		}}
		clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(p, retry.WithBudget(retry.Unlimited())), add))
		var all sync.WaitGroup
		for range rpcs {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if reply := clients.Do(ctx, c.Kind, http.Header{"X-Mine": {"mine"}}, "text"); reply.Err != nil {
					t.Error(reply.Err)
				}
			})
		}
		all.Wait()
		if got := len(srv.Calls()); got != 2*rpcs {
			t.Errorf("%d calls of %d RPCs, each of which needs two", got, rpcs)
		}
	})
}

// TestGivenUpBeforeItIsWritten: the same with attempts that end while, or before,
// their headers are written, which takes real time.
func TestGivenUpBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: unary}.Each(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Unobserved: true})
		p := eager()
		p.AttemptTimeout, p.MaxAttempts, p.Backoff = 300*time.Microsecond, 5, retry.Constant(0)
		clients := retrying(c, srv, p, retry.WithBudget(retry.Unlimited()))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 30 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					_ = clients.Do(ctx, c.Kind, http.Header{"X-Mine": {"mine"}}, "text")
					cancel()
				}
			})
		}
		all.Wait()
	})
}

// TestTimeLeftIsOfTheAttempt: each attempt tells the server what is left then.
func TestTimeLeftIsOfTheAttempt(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow, notNow)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if reply := retrying(c, srv, eager()).Do(ctx, c.Kind, nil, "text"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		var got []time.Duration
		for _, call := range srv.Calls() {
			got = append(got, timeoutOf(t, call.Header))
		}
		if diff := cmp.Diff([]time.Duration{10 * time.Second, 9 * time.Second, 8 * time.Second}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestDeadlineOfOneAttemptStaysThere: an interceptor further in gives the first
// attempt half a second. connect never deletes the header that says so.
func TestDeadlineOfOneAttemptStaysThere(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow)
		first := true
		shorten := func(ctx context.Context) context.Context {
			if !first {
				return ctx
			}
			first = false
			ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			context.AfterFunc(ctx, cancel)
			return ctx
		}
		clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), inner{
			unary: func(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
				return next(shorten(ctx), req)
			},
			stream: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
				return next(shorten(ctx), spec)
			},
		}))
		if reply := clients.Do(t.Context(), c.Kind, nil, "text"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		calls := srv.Calls()
		if len(calls) != 2 || timeoutOf(t, calls[0].Header) != 500*time.Millisecond || timeoutOf(t, calls[1].Header) != 0 {
			t.Errorf("%d calls, %v", len(calls), calls)
		}
	})
}

// TestHeadersDoNotAddUp: what interceptors further in and the http.Client add to a
// request, they add to each attempt anew.
func TestHeadersDoNotAddUp(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow, notNow)
		at, err := url.Parse(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		jar, _ := cookiejar.New(nil)
		jar.SetCookies(at, []*http.Cookie{{Name: "c", Value: "1"}})
		srv.Client().Jar = jar
		clients := c.Clients(srv, connect.WithSendGzip(), connect.WithInterceptors(retry.NewInterceptor(eager()), inner{
			unary: func(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
				req.Header().Add("X-Inner", "a")
				return next(ctx, req)
			},
			stream: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
				conn := next(ctx, spec)
				conn.RequestHeader().Add("X-Inner", "a")
				return conn
			},
		}))
		header := http.Header{"X-Mine": {"one", "two"}}
		if reply := clients.Do(t.Context(), c.Kind, header, "text"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		for name, want := range map[string]string{"X-Inner": "a", "Cookie": "c=1", "X-Mine": "one,two"} {
			if diff := cmp.Diff([]string{want, want, want}, headersOf(srv.Calls(), name)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if diff := cmp.Diff(http.Header{"X-Mine": {"one", "two"}}, header); diff != "" {
			t.Errorf("the caller's own headers: %s", diff)
		}
	})
}

// TestEveryAttemptSaysItsNumber: gRPC's header, on all protocols.
func TestEveryAttemptSaysItsNumber(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var mu sync.Mutex
		var previous []int
		srv := c.Start(t, conntest.Config{Service: failing(func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			previous = append(previous, retry.PreviousAttempts(ctx))
			if len(previous) < 4 {
				return connect.NewError(connect.CodeUnavailable, errors.New("not now"))
			}
			return nil
		})})
		p := eager()
		p.MaxAttempts = 4
		if reply := retrying(c, srv, p).Do(t.Context(), c.Kind, nil, "text"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if diff := cmp.Diff([]string{"", "1", "2", "3"}, headersOf(srv.Calls(), "Grpc-Previous-Rpc-Attempts")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]int{0, 1, 2, 3}, previous); diff != "" {
			t.Error(diff)
		}
	})
}

// failing returns handlers of all kinds that answer with nothing but the error.
func failing(serve func(context.Context) error) conntest.Service {
	return conntest.Service{
		Unary: func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(conntest.Text("")), serve(ctx)
		},
		Client: func(ctx context.Context, s *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			for s.Receive() {
				continue
			}
			return connect.NewResponse(conntest.Text("")), serve(ctx)
		},
		Server: func(ctx context.Context, _ *connect.Request[conntest.Message], _ *connect.ServerStream[conntest.Message]) error {
			return serve(ctx)
		},
		Bidi: func(ctx context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
			msg, err := s.Receive()
			if err == nil {
				err = serve(ctx)
			}
			if err == nil {
				err = s.Send(msg)
			}
			return err
		},
	}
}

// TestPreviousAttemptsOfNonsense: servers believe no header that is no number.
func TestPreviousAttemptsOfNonsense(t *testing.T) {
	t.Parallel()
	if got := retry.PreviousAttempts(t.Context()); got != 0 {
		t.Errorf("outside of handlers: %d", got)
	}
	for text, want := range map[string]int{"2": 2, "": 0, "-1": 0, "many": 0, "1.5": 0} {
		c := conntest.Case{Transport: conntest.H1, Kind: connect.StreamTypeUnary}
		var got int
		srv := c.Start(t, conntest.Config{Service: failing(func(ctx context.Context) error {
			got = retry.PreviousAttempts(ctx)
			return nil
		})})
		c.Clients(srv).Do(t.Context(), c.Kind, http.Header{"Grpc-Previous-Rpc-Attempts": {text}}, "text")
		if got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestRequestCanBeUsedAgain: attempts leave nothing in it.
func TestRequestCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := retrying(c, srv, eager())
		req := connect.NewRequest(conntest.Text("text"))
		req.Header().Set("X-Mine", "mine")
		var before http.Header
		for n := range 3 {
			srv.Inject(notNow, notNow)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := clients.Unary.CallUnary(ctx, req); err != nil {
				t.Fatal(err)
			}
			cancel()
			if n == 0 {
				before = req.Header().Clone()
			}
		}
		if diff := cmp.Diff(before, req.Header()); diff != "" {
			t.Errorf("headers changed: %s", diff)
		}
		if req.Header().Get("Grpc-Previous-Rpc-Attempts") != "" {
			t.Errorf("an attempt's header is left: %v", req.Header())
		}
		if diff := cmp.Diff([]string{"", "1", "2", "", "1", "2", "", "1", "2"}, headersOf(srv.Calls(), "Grpc-Previous-Rpc-Attempts")); diff != "" {
			t.Error(diff)
		}
		if req.Spec().Procedure != conntest.UnaryProcedure || req.Peer().Addr == "" || req.HTTPMethod() != http.MethodPost {
			t.Errorf("%+v %+v %q", req.Spec(), req.Peer(), req.HTTPMethod())
		}
	})
}

// TestAttemptTimeout: each attempt has its own time, of which its error tells:
// nobody canceled anything.
func TestAttemptTimeout(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(conntest.Block(), conntest.Block(), conntest.Block())
		p := eager()
		p.AttemptTimeout = 5 * time.Second
		start := time.Now()
		reply := retrying(c, srv, p).Do(t.Context(), c.Kind, nil, "text")
		if got := time.Since(start); got != 17*time.Second {
			t.Errorf("took %v, want 3 x 5 s and 2 x 1 s of waiting", got)
		}
		if classes := classesOf(reply.Err); classes != "attempt_timeout attempt_timeout attempt_timeout" {
			t.Errorf("%s: %v", classes, reply.Err)
		}
		if code := connect.CodeOf(reply.Err); code != connect.CodeDeadlineExceeded {
			t.Errorf("the caller gets %v, though nobody canceled: %v", code, reply.Err)
		}
	})
}

// classesOf joins the classes of an error's attempts.
func classesOf(err error) string {
	var all []string
	for _, a := range retry.HistoryOf(err) {
		all = append(all, a.Class.String())
	}
	return strings.Join(all, " ")
}
