package auth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// ask runs a unary RPC with the headers behind an interceptor, and returns who made it.
func ask(t *testing.T, i connect.Interceptor, header http.Header, procedure ...string) (id *auth.Identity, err error) {
	t.Helper()
	rpc := streamwraptest.RPC{Header: header}
	if len(procedure) > 0 {
		rpc.Spec.Procedure = procedure[0]
	}
	served := streamwraptest.ServeUnary(t.Context(), i, rpc, conntest.Text("one"),
		func(ctx context.Context, r *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			id, _ = auth.FromContext(ctx)
			return connect.NewResponse(r.Msg), nil
		})
	return id, served.Err
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	id := &auth.Identity{Scopes: []string{"a", "b"}, Roles: []string{"r"}}
	for _, tt := range []struct {
		got, want bool
	}{
		{id.HasScopes(), true},
		{id.HasScopes("b", "a"), true},
		{id.HasScopes("a", "c"), false},
		{id.HasScopes("a b"), false},
		{id.HasScopes("A"), false},
		{id.HasRoles("r"), true},
		{id.HasRoles("a"), false},
		{(&auth.Identity{}).HasScopes(""), false},
	} {
		if tt.got != tt.want {
			t.Errorf("%+v", tt)
		}
	}
	if _, ok := auth.FromContext(t.Context()); ok {
		t.Error("an identity from nowhere")
	}
	if _, ok := auth.FromContext(auth.NewContext(t.Context(), nil)); ok {
		t.Error("nil is an identity")
	}
	if got, ok := auth.FromContext(auth.NewContext(t.Context(), id)); !ok || got != id {
		t.Error(got, ok)
	}
}

func TestAnyOf(t *testing.T) {
	t.Parallel()
	returns := func(id *auth.Identity, err error) auth.Authenticator {
		return auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) { return id, err })
	}
	ada, missing := returns(&auth.Identity{Subject: "ada"}, nil), returns(nil, secretly(auth.ErrMissing))
	for _, tt := range []struct {
		name    string
		a       auth.Authenticator
		subject string
		reason  auth.Reason
	}{
		{"none", auth.AnyOf(), "", auth.ReasonMissing},
		{"all missing", auth.AnyOf(missing, missing), "", auth.ReasonMissing},
		{"falls through", auth.AnyOf(missing, ada), "ada", ""},
		{"first decides", auth.AnyOf(ada, returns(nil, auth.ErrInvalid)), "ada", ""},
		{"bad decides", auth.AnyOf(returns(nil, secretly(auth.ErrInvalid)), ada), "", auth.ReasonInvalid},
		{"malformed decides", auth.AnyOf(returns(nil, auth.ErrMalformed), auth.Anonymous()), "", auth.ReasonMalformed},
		{"unavailable decides", auth.AnyOf(returns(nil, auth.ErrUnavailable), auth.Anonymous()), "", auth.ReasonUnavailable},
		{"broken decides", auth.AnyOf(returns(nil, errors.New(private)), auth.Anonymous()), "", auth.ReasonBroken},
		{"nothing decides", auth.AnyOf(returns(nil, nil), auth.Anonymous()), "", auth.ReasonBroken},
		{"nested", auth.AnyOf(auth.AnyOf(missing), auth.AnyOf(ada)), "ada", ""},
	} {
		id, err := ask(t, auth.NewServerInterceptor(tt.a), nil)
		if reasonOf(err) != tt.reason || tt.subject != "" && (id == nil || id.Subject != tt.subject) {
			t.Errorf("%s: %+v, %v", tt.name, id, err)
		}
	}
}

// TestAnonymous: nobody in particular may do what is for anyone, and is asked for a
// credential for everything else.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	policy := auth.NewPolicy().Allow("/s/Open", auth.Anyone()).Allow("/s/Known", auth.Authenticated()).
		Allow("/s/Scoped", auth.Scopes("a")).Allow("/s/Empty", auth.Scopes()).Allow("/s/Closed", auth.Nobody())
	i := auth.NewServerInterceptor(auth.Anonymous(), auth.WithPolicy(policy))
	for procedure, want := range map[string]auth.Reason{
		"/s/Open": "", "/s/Known": auth.ReasonMissing, "/s/Scoped": auth.ReasonMissing,
		"/s/Empty": auth.ReasonMissing, "/s/Closed": auth.ReasonDenied, "/s/Other": auth.ReasonNoPolicy,
	} {
		if id, err := ask(t, i, nil, procedure); reasonOf(err) != want || err == nil && id.Method != "anonymous" {
			t.Errorf("%s: %v", procedure, err)
		}
	}
}

func TestAPIKey(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", 1024)
	lookup := auth.StaticKeys(map[auth.KeyDigest]*auth.Identity{
		auth.DigestKey("one"): {Subject: "ada"}, auth.DigestKey(long): {Subject: "bob", Method: "own"},
	})
	for _, tt := range []struct {
		name    string
		header  http.Header
		subject string
		method  string
		reason  auth.Reason
	}{
		{"missing", nil, "", "", auth.ReasonMissing},
		{"good", http.Header{"X-Api-Key": {"one"}}, "ada", "apikey", ""},
		{"longest", http.Header{"X-Api-Key": {long}}, "bob", "own", ""},
		{"too long", http.Header{"X-Api-Key": {long + "k"}}, "", "", auth.ReasonMalformed},
		{"unknown", http.Header{"X-Api-Key": {"two"}}, "", "", auth.ReasonInvalid},
		{"case", http.Header{"X-Api-Key": {"ONE"}}, "", "", auth.ReasonInvalid},
		{"empty", http.Header{"X-Api-Key": {""}}, "", "", auth.ReasonMalformed},
		{"two", http.Header{"X-Api-Key": {"one", "one"}}, "", "", auth.ReasonMalformed},
		{"joined", http.Header{"X-Api-Key": {"one, one"}}, "", "", auth.ReasonInvalid},
	} {
		i := auth.NewServerInterceptor(auth.APIKey("x-api-KEY", lookup))
		id, err := ask(t, i, tt.header)
		if reasonOf(err) != tt.reason || err == nil && (id.Subject != tt.subject || id.Method != tt.method) {
			t.Errorf("%s: %+v, %v", tt.name, id, err)
		}
	}
}

// TestStaticKeysCopies: what the caller does to its map later changes nothing.
func TestStaticKeysCopies(t *testing.T) {
	t.Parallel()
	id := &auth.Identity{Subject: "ada"}
	keys := map[auth.KeyDigest]*auth.Identity{auth.DigestKey("one"): id}
	lookup := auth.StaticKeys(keys)
	id.Subject = "bob"
	delete(keys, auth.DigestKey("one"))
	if got, err := lookup(t.Context(), auth.DigestKey("one")); err != nil || got.Subject != "ada" || id.Method != "" {
		t.Error(got, err, id)
	}
}

// TestPanics: programming errors are named.
func TestPanics(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context, auth.KeyDigest) (*auth.Identity, error) { return nil, nil }
	for want, f := range map[string]func(){
		"auth: NewServerInterceptor: nil Authenticator":                                  func() { auth.NewServerInterceptor(nil) },
		"auth: NewClientInterceptor: nil TokenSource":                                    func() { auth.NewClientInterceptor(nil) },
		"auth: AnyOf: nil Authenticator":                                                 func() { auth.AnyOf(auth.Anonymous(), nil) },
		"auth: APIKey: no header, or nil lookup":                                         func() { auth.APIKey("", nothing) },
		"auth: Cached: nil TokenSource":                                                  func() { auth.Cached(nil) },
		"auth: HTTPClient: nil client":                                                   func() { auth.HTTPClient(nil) },
		"auth: MTLS: neither TrustDomain nor Authorize":                                  func() { auth.MTLS(auth.MTLSConfig{}) },
		"auth: WithPolicy: nil Policy":                                                   func() { auth.WithPolicy(nil) },
		"auth: WithStreamGrace: negative duration":                                       func() { auth.WithStreamGrace(-1) },
		"auth: WithMaxStreamAge: duration is not positive":                               func() { auth.WithMaxStreamAge(0) },
		"auth: WithRevalidation: period is not positive, or nil function":                func() { auth.WithRevalidation(1, nil) },
		"auth: WithMessageAuthorizer: nil function":                                      func() { auth.WithMessageAuthorizer(nil) },
		"auth: WithObserver: nil function":                                               func() { auth.WithObserver(nil) },
		"auth: Policy.Allow: no rule for /s/M":                                           func() { auth.NewPolicy().Allow("/s/M") },
		"auth: Policy.Allow: /s/M comes twice":                                           func() { auth.NewPolicy().Allow("/s/M", auth.Anyone()).Allow("/s/M", auth.Anyone()) },
		`auth: Policy.Allow: "s/M" is neither "/pkg.Service/Method" nor "/pkg.Service/"`: func() { auth.NewPolicy().Allow("s/M", auth.Anyone()) },
	} {
		if got := panics(f); got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}
	if panics(func() { auth.APIKey("k", nil) }) == nil || panics(func() {
		auth.WithRevalidation(0, func(context.Context, *auth.Identity) error { return nil })
	}) == nil {
		t.Error("no panic")
	}
	for _, pattern := range []string{"", "/", "//", "//M", "/s", "/s/M/", "/s/M/N", "s.S", "*"} {
		if panics(func() { auth.NewPolicy().Allow(pattern, auth.Anyone()) }) == nil {
			t.Errorf("%q is allowed", pattern)
		}
	}
}

// TestNilFunctionsPanic: a nil check is one that would never be made.
func TestNilFunctionsPanic(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]func(){
		"auth: Policy.Require: nil function":     func() { auth.NewPolicy().Require(nil) },
		"auth: Policy.FromOptions: nil function": func() { auth.NewPolicy().FromOptions(nil) },
		"auth: NewServerInterceptor: nil Option": func() { auth.NewServerInterceptor(auth.Anonymous(), auth.WithRealm("x"), nil) },
		"auth: StaticKeys: nil Identity":         func() { auth.StaticKeys(map[auth.KeyDigest]*auth.Identity{{}: nil}) },
	} {
		if got := panics(f); got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}
}

func panics(f func()) (p any) {
	defer func() { p = recover() }()
	f()
	return nil
}

// TestClientSideDoesNothing: on clients the server's interceptor is not there.
func TestClientSideDoesNothing(t *testing.T) {
	t.Parallel()
	var seen events
	i := auth.NewServerInterceptor(auth.AnyOf(), seen.option())
	_, err := streamwraptest.CallUnary(t.Context(), i, streamwraptest.RPC{}, conntest.Text("one"),
		func(_ context.Context, r *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(r.Msg), nil
		})
	if err != nil || len(seen.all()) != 0 {
		t.Error(err, seen.reasons())
	}
}

// TestTLSNeedsAnEngine: an authenticator that wants to know the connection learns that it
// cannot, and the client no more than that something is wrong.
func TestTLSNeedsAnEngine(t *testing.T) {
	t.Parallel()
	var seen events
	i := auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org"}), seen.option())
	_, err := ask(t, i, nil)
	wantReason(t, err, auth.ReasonBroken, connect.CodeInternal)
	for _, word := range []string{"Engine", "engine", "TLS", "streamwrap"} {
		if coded := (*connect.Error)(nil); errors.As(err, &coded) && strings.Contains(coded.Message(), word) {
			t.Error(coded.Message())
		}
	}
	e := errors.Unwrap(seen.all()[0].Err)
	if e == nil || !strings.Contains(e.Error(), "engine.Handler") {
		t.Errorf("the observer got %v", e)
	}
}
