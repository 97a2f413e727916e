package chain_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	connectcors "connectrpc.com/cors"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/rs/cors"
)

// What a browser's scripts may send and read beside connect's own headers: the manual has
// these lists.
var (
	allowedHeaders = []string{"Authorization", "Traceparent", "Tracestate", "Baggage", "Grpc-Previous-Rpc-Attempts"}
	exposedHeaders = []string{
		"WWW-Authenticate", "Retry-After", "RateLimit", "RateLimit-Policy", "Grpc-Retry-Pushback-Ms", "Traceparent",
	}
)

const origin = "https://app.example.com"

// withCORS is what a server for browsers has around its Engine.
func withCORS(next http.Handler) http.Handler {
	return cors.New(cors.Options{
		AllowedOrigins: []string{origin},
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), allowedHeaders...),
		ExposedHeaders: append(connectcors.ExposedHeaders(), exposedHeaders...),
	}).Handler(next)
}

// browser does as browsers do with what a script of another origin asks for: it asks
// first, and shows the script only what it may see.
type browser struct {
	t       *testing.T
	network *http.Client
	hidden  []string // headers that the script did not get
}

// scripts makes clients leave compression to the browser, as scripts do.
var scripts = connect.WithAcceptCompression("gzip", nil, nil)

// safelisted are what every script may send and see (https://fetch.spec.whatwg.org).
var safelisted = []string{"Cache-Control", "Content-Language", "Content-Length", "Content-Type", "Expires", "Last-Modified", "Pragma"}

// Do implements [connect.HTTPClient].
func (b *browser) Do(r *http.Request) (*http.Response, error) {
	for _, name := range []string{"User-Agent", "Accept-Encoding"} {
		r.Header.Del(name) // the browser's own business
	}
	r.Header.Set("Origin", origin)
	b.preflight(r)
	res, err := b.network.Do(r)
	if err != nil {
		return nil, err
	}
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != origin {
		b.t.Errorf("the answer %s is for the origin %q", res.Status, got)
	}
	exposed := append(split(res.Header.Get("Access-Control-Expose-Headers")), safelisted...)
	for name := range res.Header {
		if !slices.ContainsFunc(exposed, func(e string) bool { return strings.EqualFold(e, name) }) {
			b.hidden = append(b.hidden, name)
			res.Header.Del(name)
		}
	}
	return res, nil
}

// preflight asks whether a request may be made.
func (b *browser) preflight(r *http.Request) {
	var names []string
	for name := range r.Header {
		if name != "Origin" {
			names = append(names, strings.ToLower(name))
		}
	}
	slices.Sort(names)
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodOptions, r.URL.String(), http.NoBody)
	if err != nil {
		b.t.Error(err)
		return
	}
	ask.Header = http.Header{
		"Origin": {origin}, "Access-Control-Request-Method": {r.Method}, "Access-Control-Request-Headers": {strings.Join(names, ",")},
	}
	res, err := b.network.Do(ask)
	if err != nil {
		b.t.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if got := res.Header.Get("Access-Control-Allow-Origin"); res.StatusCode != http.StatusNoContent || got != origin {
		b.t.Errorf("preflight with %v: %s, for the origin %q", names, res.Status, got)
	}
	allowed := append(split(res.Header.Get("Access-Control-Allow-Headers")), safelisted...)
	for _, name := range names {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) }) {
			b.t.Errorf("the header %q may not be sent", name)
		}
	}
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// TestBrowser: scripts of another origin call a server behind CORS middleware, over what
// browsers can speak. Preflights do not reach the chain, and its refusals tell scripts all
// that they tell others.
func TestBrowser(t *testing.T) {
	t.Parallel()
	matrix := conntest.Matrix{
		Transports: h1and2, Protocols: []conntest.Protocol{conntest.Connect, conntest.GRPCWeb},
		Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer},
	}
	for _, tt := range []struct {
		name     string
		settings func() settings
		token    string
		want     connect.Code
		check    func(t *testing.T, err *connect.Error)
	}{
		{name: "success", settings: func() settings { return settings{} }, token: "ada"},
		{
			name: "no token", settings: func() settings { return settings{} }, want: connect.CodeUnauthenticated,
			check: func(t *testing.T, err *connect.Error) {
				if reason, _ := auth.ReasonOf(err); reason != auth.ReasonMissing {
					t.Errorf("the reason is %q", reason)
				}
				if got := err.Meta().Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
					t.Errorf("the challenge is %q", got)
				}
			},
		},
		{
			name: "limit", settings: func() settings { return settings{users: none()} }, token: "ada", want: connect.CodeResourceExhausted,
			check: func(t *testing.T, err *connect.Error) {
				for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy", "Grpc-Retry-Pushback-Ms"} {
					if err.Meta().Get(name) == "" {
						t.Errorf("the script does not see %s: %v", name, err.Meta())
					}
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(tt.settings())
				srv := s.start(t, c, conntest.Config{Wrap: func(mux http.Handler) http.Handler { return withCORS(s.wrap(mux)) }})
				b := &browser{t: t, network: srv.Client()}
				header := make(http.Header)
				for _, name := range append(slices.Clone(allowedHeaders)[1:], "X-User-Agent") {
					header.Set(name, "1")
				}
				if tt.token != "" {
					header.Set("Authorization", "Bearer "+tt.token)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a header too
				defer cancel()
				clients := conntest.NewClients(b, srv.URL, c.Option(), scripts)
				err := clients.Do(ctx, c.Kind, header, "hello").Err
				wantCode(t, err, tt.want)
				if tt.check != nil {
					tt.check(t, coded(t, err))
				}
				wantHidden(t, b.hidden)
				if told := s.records.all(); len(told) != 1 {
					t.Errorf("%d records, want one of the RPC and none of the preflight", len(told))
				}
			})
		})
	}
}

// wantHidden checks that scripts see all headers but those that are about HTTP.
func wantHidden(t *testing.T, hidden []string) {
	t.Helper()
	about := []string{
		"Accept-Encoding", "Accept-Post", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Date", "Vary",
		"Connect-Accept-Encoding", "Grpc-Accept-Encoding", "Trailer", "X-Content-Type-Options",
	}
	for _, name := range hidden {
		if !slices.Contains(about, name) {
			t.Errorf("scripts do not see the header %q", name)
		}
	}
}

// TestPushbackInBrowser: what a handler says about retries is seen too.
func TestPushbackInBrowser(t *testing.T) {
	t.Parallel()
	unary := []connect.StreamType{connect.StreamTypeUnary}
	conntest.Matrix{Transports: h1and2, Protocols: []conntest.Protocol{conntest.Connect, conntest.GRPCWeb}, Kinds: unary}.
		EachBubble(t, func(t *testing.T, c conntest.Case) {
			s := newServer(settings{})
			options := append(s.order(), connect.WithInterceptors(atHandler(func(context.Context) error {
				return retry.Pushback(connect.NewError(connect.CodeUnavailable, errBroken), time.Minute)
			})))
			srv := s.start(t, c, conntest.Config{HandlerOptions: options, Wrap: func(mux http.Handler) http.Handler { return withCORS(s.wrap(mux)) }})
			b := &browser{t: t, network: srv.Client()}
			err := conntest.NewClients(b, srv.URL, c.Option(), scripts, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err
			wantCode(t, err, connect.CodeUnavailable)
			meta := coded(t, err).Meta()
			if meta.Get("Grpc-Retry-Pushback-Ms") != "60000" || meta.Get("Retry-After") != "60" {
				t.Errorf("the script sees %v", meta)
			}
			wantHidden(t, b.hidden)
		})
}

// coded returns an error as connect's.
func coded(t *testing.T, err error) *connect.Error {
	t.Helper()
	e := (*connect.Error)(nil)
	if !errors.As(err, &e) {
		t.Fatalf("%v is none of connect's errors", err)
	}
	return e
}
