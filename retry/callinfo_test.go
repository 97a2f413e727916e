package retry_test

import (
	"net/http"
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

// TestGet: connect takes headers away that a GET does not need, and a fallback to
// POST must find them again.
func TestGet(t *testing.T) {
	t.Parallel()
	m := conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect}, Codecs: conntest.AllCodecs(), Kinds: unary}
	for _, hedge := range []time.Duration{0, time.Minute} {
		m.EachBubble(t, func(t *testing.T, c conntest.Case) {
			var methods []string
			srv := c.Start(t, conntest.Config{
				HandlerOptions: []connect.HandlerOption{connect.WithIdempotency(connect.IdempotencyNoSideEffects)},
				Wrap: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						methods = append(methods, r.Method)
						next.ServeHTTP(w, r)
					})
				},
			})
			srv.Inject(notNow, notNow)
			clients := c.Clients(srv, connect.WithIdempotency(connect.IdempotencyNoSideEffects), connect.WithHTTPGet(),
				connect.WithHTTPGetMaxURLSize(200, true), connect.WithInterceptors(retry.NewInterceptor(retry.Policy{Hedge: hedge})))
			for _, test := range []struct{ text, method string }{
				{"short", http.MethodGet},
				{strings.Repeat("long", 100), http.MethodPost},
			} {
				ctx, info := connect.NewClientContext(t.Context())
				req := connect.NewRequest(conntest.Text(test.text))
				res, err := clients.Unary.CallUnary(ctx, req)
				if err != nil {
					t.Fatal(err)
				}
				if string(res.Msg.GetValue()) != test.text || req.HTTPMethod() != test.method || info.HTTPMethod() != test.method {
					t.Errorf("%s: the request says %q, the CallInfo %q", test.method, req.HTTPMethod(), info.HTTPMethod())
				}
			}
			if diff := cmp.Diff([]string{"GET", "GET", "GET", "POST"}, methods); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMethodOfWhatFailed: interceptors further out read it for failures too.
func TestMethodOfWhatFailed(t *testing.T) {
	t.Parallel()
	c := conntest.Case{Kind: connect.StreamTypeUnary}
	srv := c.Start(t, conntest.Config{})
	srv.Inject(conntest.Fail(connect.CodeNotFound, "no"))
	req := connect.NewRequest(conntest.Text("text"))
	_, err := retrying(c, srv, eager()).Unary.CallUnary(t.Context(), req)
	if connect.CodeOf(err) != connect.CodeNotFound || req.HTTPMethod() != http.MethodPost {
		t.Errorf("method %q of %v", req.HTTPMethod(), err)
	}
}

// answers is a server whose responses say which request they answer.
func answers(t *testing.T, c conntest.Case) *conntest.Server {
	var mu sync.Mutex
	requests := 0
	return c.Start(t, conntest.Config{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			requests++
			w.Header().Set("Served", strconv.Itoa(requests))
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}})
}

// TestCallInfoIsOfTheWinner: whoever makes the RPC sees the headers of the attempt
// that it got.
func TestCallInfoIsOfTheWinner(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := answers(t, c)
		srv.Inject(notNow, notNow)
		clients := c.Clients(srv, connect.WithInterceptors(inner{}, retry.NewInterceptor(eager()), inner{}))
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("X-Mine", "mine")
		reply := clients.Do(ctx, c.Kind, nil, "text")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if got := info.ResponseHeader().Get("Served"); got != "3" || reply.Header.Get("Served") != "3" {
			t.Errorf("CallInfo has the headers of attempt %q, the response of %q", got, reply.Header.Get("Served"))
		}
		if !info.Spec().IsClient || info.Peer().Addr == "" {
			t.Errorf("%+v %+v", info.Spec(), info.Peer())
		}
		if diff := cmp.Diff([]string{"mine", "mine", "mine"}, headersOf(srv.Calls(), "X-Mine")); diff != "" {
			t.Error(diff)
		}
		if c.Kind == connect.StreamTypeUnary && info.HTTPMethod() != http.MethodPost {
			t.Errorf("method %q", info.HTTPMethod())
		}
	})
}

// TestCallInfoOfHedges: attempts beside each other would write to it concurrently.
// The caller changes the message and reads everything at once, which the race
// detector watches.
func TestCallInfoOfHedges(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := answers(t, c)
		p := eager()
		p.Hedge = time.Second
		clients := c.Clients(srv, connect.WithInterceptors(inner{}, retry.NewInterceptor(p), inner{}))
		for n := range 10 {
			srv.Inject(conntest.Block())
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set(conntest.TrailerPrefix+"Mine", "mine")
			msg := conntest.Text("text")
			res, err := clients.Unary.CallUnary(ctx, connect.NewRequest(msg))
			msg.Value = []byte("changed")
			if err != nil {
				t.Fatal(err)
			}
			want := strconv.Itoa(2 * (n + 1)) // the second attempt of each RPC
			if got := info.ResponseHeader().Get("Served"); got != want || res.Header().Get("Served") != want {
				t.Errorf("CallInfo has attempt %q, the response %q, want %q", got, res.Header().Get("Served"), want)
			}
			if got := info.ResponseTrailer().Get(conntest.TrailerPrefix + "Mine"); got != "mine" {
				t.Errorf("trailer %q", got)
			}
			if info.HTTPMethod() != http.MethodPost || !info.Spec().IsClient || info.Peer().Addr == "" {
				t.Errorf("%q %+v %+v", info.HTTPMethod(), info.Spec(), info.Peer())
			}
		}
	})
}

// TestCallInfoOfFailures: the headers of an error are there as without retries,
// also if attempts ran beside each other.
func TestCallInfoOfFailures(t *testing.T) {
	t.Parallel()
	for _, hedge := range []time.Duration{0, time.Second} {
		t.Run(hedge.String(), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := answers(t, c)
				srv.Inject(conntest.Fail(connect.CodeNotFound, "no"))
				p := eager()
				p.Hedge = hedge
				ctx, info := connect.NewClientContext(t.Context())
				reply := retrying(c, srv, p).Do(ctx, c.Kind, nil, "text")
				if connect.CodeOf(reply.Err) != connect.CodeNotFound || info.ResponseHeader().Get("Served") != "1" {
					t.Errorf("headers %v of %v", info.ResponseHeader(), reply.Err)
				}
			})
		})
	}
}
