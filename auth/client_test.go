package auth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// numbered is a source of the tokens "t1", "t2" and so on, which never expire.
type numbered struct{ n atomic.Int64 }

func (s *numbered) Token(context.Context) (auth.Token, error) {
	return auth.Token{Value: fmt.Sprintf("t%d", s.n.Add(1))}, nil
}

// server is an echo service that knows which tokens it got, and refuses some of them.
type server struct {
	*conntest.Server

	mu     sync.Mutex
	got    []string
	refuse map[string]error // by header
}

func (s *server) Authenticate(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value := strings.Join(r.Header.Values("Authorization"), "|")
	s.got = append(s.got, value)
	if err := s.refuse[value]; err != nil {
		return nil, err
	}
	return &auth.Identity{Subject: "ada"}, nil
}

func (s *server) tokens() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, ",")
}

func newServer(t *testing.T, c conntest.Case, refuse map[string]error) *server {
	s := &server{refuse: refuse}
	s.Server = c.Start(t, behind(auth.NewServerInterceptor(s), conntest.Config{}))
	return s
}

// TestTokenIsSent: with all kinds of RPCs, unless the caller has one of its own.
func TestTokenIsSent(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, nil)
		clients := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(auth.StaticToken("secret"))))
		typed := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(auth.TokenFunc(
			func(context.Context) (auth.Token, error) { return auth.Token{Value: "x", Type: "Own"}, nil }))))
		for _, err := range []error{
			clients.Do(t.Context(), c.Kind, nil, "one").Err,
			clients.Do(t.Context(), c.Kind, with("mine"), "one").Err,
			typed.Do(t.Context(), c.Kind, nil, "one").Err,
		} {
			if err != nil {
				t.Error(err)
			}
		}
		if got, want := srv.tokens(), "Bearer secret,Bearer mine,Own x"; got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
	})
}

// TestEachTokenIsSent: a source may have another for each RPC, of another type, too.
func TestEachTokenIsSent(t *testing.T) {
	t.Parallel()
	tokens := []auth.Token{{Value: "a"}, {Value: "a"}, {Value: "a", Type: "Own"}, {Value: "b", Type: "Own"}, {Value: "b"}, {Value: "a"}}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, nil)
		next := 0
		clients := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(auth.TokenFunc(
			func(context.Context) (auth.Token, error) {
				next++
				return tokens[next-1], nil
			}))))
		for range tokens {
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
		}
		if got, want := srv.tokens(), "Bearer a,Bearer a,Own a,Own b,Bearer b,Bearer a"; got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
	})
}

// TestNoToken: the RPC fails with a code that tells why, and nothing is sent.
func TestNoToken(t *testing.T) {
	t.Parallel()
	own := connect.NewError(connect.CodeNotFound, errors.New("no account"))
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, nil)
		for _, tt := range []struct {
			err  error
			want connect.Code
		}{
			{errors.New("no network"), connect.CodeUnavailable},
			{fmt.Errorf("source: %w", own), connect.CodeNotFound},
			{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		} {
			source := auth.TokenFunc(func(context.Context) (auth.Token, error) { return auth.Token{}, tt.err })
			for _, s := range []auth.TokenSource{source, auth.Cached(source)} {
				err := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(s))).Do(t.Context(), c.Kind, nil, "one").Err
				if connect.CodeOf(err) != tt.want {
					t.Errorf("%v: got %v", tt.err, err)
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		slow := auth.TokenFunc(func(ctx context.Context) (auth.Token, error) { <-ctx.Done(); return auth.Token{}, ctx.Err() })
		start := time.Now()
		err := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(auth.Cached(slow)))).Do(ctx, c.Kind, nil, "one").Err
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
		time.Sleep(time.Minute) // the source's own time is up
	})
}

// TestRequestIsFreeOfTheToken: a request that is used again, for whatever server, does not
// carry a token that its caller has never seen: neither after success nor after failure.
func TestRequestIsFreeOfTheToken(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, map[string]error{"Bearer t2": auth.ErrDenied, "Bearer t3": auth.ErrExpired, "Bearer t4": auth.ErrExpired})
		client := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(&numbered{}))).Unary
		for _, want := range []connect.Code{0, connect.CodePermissionDenied, connect.CodeUnauthenticated, 0} {
			r := connect.NewRequest(conntest.Text("one"))
			_, err := client.CallUnary(t.Context(), r)
			if err != nil && connect.CodeOf(err) != want || err == nil && want != 0 {
				t.Errorf("got %v, want %v", err, want)
			}
			if got := r.Header().Values("Authorization"); len(got) != 0 {
				t.Errorf("after %v it has %q", err, got)
			}
		}
		r := connect.NewRequest(conntest.Text("one"))
		r.Header().Set("Authorization", "Bearer mine")
		if _, err := client.CallUnary(t.Context(), r); err != nil || r.Header().Get("Authorization") != "Bearer mine" {
			t.Errorf("%v, and the caller's own is now %q", err, r.Header().Get("Authorization"))
		}
	})
}

// TestFailedRequestIsFreeOfTheToken: the same if there was no answer, which is when a
// request is most likely to be used again.
func TestFailedRequestIsFreeOfTheToken(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, nil)
		srv.RefuseDials(true)
		source := &numbered{}
		client := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(source))).Unary
		r := connect.NewRequest(conntest.Text("one"))
		if _, err := client.CallUnary(t.Context(), r); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Fatal(err)
		}
		srv.RefuseDials(false)
		if _, err := client.CallUnary(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		// The second attempt asks for a token of its own.
		if got, want := srv.tokens(), "Bearer t2"; got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
		if got := r.Header().Values("Authorization"); len(got) != 0 {
			t.Errorf("it has %q", got)
		}
	})
}

// TestRefusedTokens: which RPCs are made once more, and what happens to the token.
func TestRefusedTokens(t *testing.T) {
	t.Parallel()
	plain := connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
	challenged := connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
	challenged.Meta().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	for _, tt := range []struct {
		name       string
		err        error
		idempotent bool
		want       string // of unary RPCs
		after      string // the next RPC's token
	}{
		{"expired", auth.ErrExpired, false, "Bearer t1,Bearer t2", "Bearer t2"},
		{"invalid", auth.ErrInvalid, false, "Bearer t1,Bearer t2", "Bearer t2"},
		{"revoked", auth.ErrRevoked, false, "Bearer t1,Bearer t2", "Bearer t2"},
		{"missing", auth.ErrMissing, false, "Bearer t1", "Bearer t2"},
		{"plain", plain, false, "Bearer t1", "Bearer t2"},
		{"plain, idempotent", plain, true, "Bearer t1,Bearer t2", "Bearer t2"},
		{"denied, idempotent", auth.ErrDenied, true, "Bearer t1", "Bearer t1"},
		{"unavailable, idempotent", auth.ErrUnavailable, true, "Bearer t1", "Bearer t1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				// Without an Engine gRPC has no challenge, only the typed reason.
				srv := &server{refuse: map[string]error{"Bearer t1": tt.err}}
				srv.Server = c.Start(t, placing{gate: true}.config(auth.NewServerInterceptor(srv)))
				opts := []connect.ClientOption{connect.WithInterceptors(auth.NewClientInterceptor(auth.Cached(&numbered{})))}
				if tt.idempotent {
					opts = append(opts, connect.WithIdempotency(connect.IdempotencyIdempotent))
				}
				clients := c.Clients(srv.Server, opts...)
				err := clients.Do(t.Context(), c.Kind, nil, "one").Err
				want := "Bearer t1"
				if c.Kind == connect.StreamTypeUnary {
					want = tt.want
				}
				if got := srv.tokens(); got != want {
					t.Errorf("the server got %q, want %q", got, want)
				}
				if twice := strings.Contains(want, ","); twice != (err == nil) {
					t.Errorf("it ended with %v", err)
				}
				_ = clients.Do(t.Context(), c.Kind, nil, "one")
				if got := srv.tokens(); !strings.HasSuffix(got, ","+tt.after) {
					t.Errorf("the server got %q, want %q at last", got, tt.after)
				}
			})
		})
	}
	t.Run("challenge", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Protocols: []conntest.Protocol{conntest.Connect, conntest.GRPCWeb}, Kinds: []connect.StreamType{connect.StreamTypeUnary}, Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			srv := newServer(t, c, map[string]error{"Bearer t1": challenged})
			clients := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(auth.Cached(&numbered{}))))
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
		})
	})
}

// TestOnceMoreAndNoMore: there is one repetition, with another token or not at all.
func TestOnceMoreAndNoMore(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := newServer(t, c, map[string]error{"Bearer t1": auth.ErrExpired, "Bearer t2": auth.ErrExpired, "Bearer same": auth.ErrExpired})
		cached := auth.Cached(&numbered{})
		for _, source := range []auth.TokenSource{cached, auth.StaticToken("same"), auth.Cached(auth.StaticToken("same"))} {
			err := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(source))).Do(t.Context(), c.Kind, nil, "one").Err
			wantReason(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
		}
		if got, want := srv.tokens(), "Bearer t1,Bearer t2,Bearer same,Bearer same"; got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
		// One token a second is dropped: the second one when an RPC fails with it again.
		time.Sleep(time.Second)
		err := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(cached))).Do(t.Context(), c.Kind, nil, "one").Err
		if got, want := srv.tokens(), "Bearer t1,Bearer t2,Bearer same,Bearer same,Bearer t2,Bearer t3"; err != nil || got != want {
			t.Errorf("%v: the server got %q, want %q", err, got, want)
		}
	})
}

// TestNoTokenForNothing: where there will be no repetition nobody waits for a token.
func TestNoTokenForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plain := connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
		c := conntest.Case{Kind: connect.StreamTypeUnary}
		srv := newServer(t, c, map[string]error{"Bearer t1": plain})
		var n atomic.Int64
		source := auth.Cached(auth.TokenFunc(func(ctx context.Context) (auth.Token, error) {
			if n.Add(1) > 1 {
				<-ctx.Done()
			}
			return auth.Token{Value: "t1"}, ctx.Err()
		}))
		start := time.Now()
		err := c.Clients(srv.Server, connect.WithInterceptors(auth.NewClientInterceptor(source))).Do(t.Context(), c.Kind, nil, "one").Err
		if took := time.Since(start); connect.CodeOf(err) != connect.CodeUnauthenticated || took != 0 {
			t.Errorf("after %v: %v", took, err)
		}
		time.Sleep(time.Minute) // the source's own time is up
	})
}

// TestSendWaitsForTheTokenWhileTheStreamEnds: the two sides of a stream do not race for
// its token.
func TestSendWaitsForTheTokenWhileTheStreamEnds(t *testing.T) {
	t.Parallel()
	// An interceptor further in may end a stream with another RPC's error.
	refusal := connect.NewWireError(connect.CodeUnauthenticated, errors.New("no"))
	for n := range 40 {
		release := make(chan struct{})
		i := auth.NewClientInterceptor(auth.TokenFunc(func(context.Context) (auth.Token, error) {
			<-release
			return auth.Token{Value: "late"}, nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		script := streamwraptest.Script{}
		if n%2 == 0 {
			script.Receive = []streamwraptest.Step{streamwraptest.Fail(refusal)}
		}
		conn := streamwraptest.OpenStream(ctx, i, streamwraptest.NewClientConn(script))
		var g sync.WaitGroup
		g.Go(func() { _ = conn.Send(conntest.Text("one")) })
		g.Go(func() {
			if n%2 != 0 {
				cancel()
			}
			_ = conn.Receive(&conntest.Message{})
		})
		close(release)
		g.Wait()
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		cancel()
	}
}
