package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// private is in every error that only the server may see.
const private = "password=secret"

// row is one line of the table of errors.
type row struct {
	name      string
	err       error // of the authenticator; nil: the policy refuses
	panics    bool
	code      connect.Code
	message   string
	challenge string
	info      *errdetails.ErrorInfo // nil: none
	retry     bool
}

func info(reason auth.Reason, metadata ...string) *errdetails.ErrorInfo {
	i := &errdetails.ErrorInfo{Reason: string(reason), Domain: "interconnect.auth"}
	for ; len(metadata) > 0; metadata = metadata[2:] {
		if i.Metadata == nil {
			i.Metadata = make(map[string]string)
		}
		i.Metadata[metadata[0]] = metadata[1]
	}
	return i
}

// secretly wraps an error with something that only the server may see.
func secretly(err error) error { return fmt.Errorf("%w: %s", err, private) }

var rows = []row{
	{
		name: "missing", err: secretly(auth.ErrMissing), code: connect.CodeUnauthenticated,
		message: "authentication required", challenge: `Bearer realm="rpc"`, info: info(auth.ReasonMissing),
	},
	{
		name: "malformed", err: secretly(auth.ErrMalformed), code: connect.CodeUnauthenticated,
		message: "malformed credentials", challenge: `Bearer realm="rpc", error="invalid_request"`, info: info(auth.ReasonMalformed),
	},
	{
		name: "invalid", err: secretly(auth.ErrInvalid), code: connect.CodeUnauthenticated,
		message: "invalid token", challenge: `Bearer realm="rpc", error="invalid_token"`, info: info(auth.ReasonInvalid),
	},
	{
		name: "expired", err: secretly(auth.ErrExpired), code: connect.CodeUnauthenticated, message: "token expired",
		challenge: `Bearer realm="rpc", error="invalid_token", error_description="token expired"`, info: info(auth.ReasonExpired),
	},
	{
		name: "not yet valid", err: secretly(auth.ErrNotYetValid), code: connect.CodeUnauthenticated,
		message: "token not yet valid", challenge: `Bearer realm="rpc", error="invalid_token"`, info: info(auth.ReasonNotYetValid),
	},
	{
		name: "revoked", err: secretly(auth.ErrRevoked), code: connect.CodeUnauthenticated,
		message: "token revoked", challenge: `Bearer realm="rpc", error="invalid_token"`, info: info(auth.ReasonRevoked),
	},
	{
		name: "denied", err: secretly(auth.ErrDenied), code: connect.CodePermissionDenied,
		message: "permission denied", info: info(auth.ReasonDenied),
	},
	{
		name: "scopes", code: connect.CodePermissionDenied, message: "permission denied",
		challenge: `Bearer realm="rpc", error="insufficient_scope", scope="read write"`,
		info:      info(auth.ReasonScope, "requiredScopes", "read write"),
	},
	{
		name: "unavailable", err: secretly(auth.ErrUnavailable), code: connect.CodeUnavailable,
		message: "authentication temporarily unavailable", info: info(auth.ReasonUnavailable), retry: true,
	},
	{
		name: "plain error", err: errors.New(private), code: connect.CodeInternal,
		message: "authentication failed", info: info(auth.ReasonBroken),
	},
	{
		// A timeout of the authenticator's own is not the end of the RPC.
		name: "inner timeout", err: secretly(context.DeadlineExceeded), code: connect.CodeInternal,
		message: "authentication failed", info: info(auth.ReasonBroken),
	},
	{
		name: "panic", panics: true, code: connect.CodeInternal,
		message: "authentication failed", info: info(auth.ReasonBroken),
	},
	{
		name: "nobody", err: errNobody, code: connect.CodeInternal,
		message: "authentication failed", info: info(auth.ReasonBroken),
	},
	{
		name: "connect error", err: connect.NewError(connect.CodeResourceExhausted, errors.New("slow down")),
		code: connect.CodeResourceExhausted, message: "slow down",
	},
}

// errNobody stands for neither an identity nor an error.
var errNobody = errors.New("nobody")

// rowHeader names the row that the authenticator fails with.
const rowHeader = "Row"

// byRow is an authenticator that fails as the request asks.
func byRow(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	for _, row := range rows {
		switch {
		case row.name != r.Header.Get(rowHeader):
		case row.panics:
			panic(private)
		case row.err == errNobody:
			return nil, nil
		case row.err != nil:
			return nil, row.err
		}
	}
	return &auth.Identity{Subject: "ada", Scopes: []string{"read"}}, nil
}

// placing is a way to install an interceptor.
type placing struct{ gate, engine bool }

var placings = []placing{{true, true}, {true, false}, {false, true}, {false, false}}

func (p placing) String() string { return fmt.Sprintf("gate=%v engine=%v", p.gate, p.engine) }

func (p placing) config(i *auth.Interceptor) conntest.Config {
	config := conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}}
	if p.gate {
		config.HandlerOptions = []connect.HandlerOption{i.HandlerOption()}
	}
	if p.engine {
		config.Wrap = streamwrap.NewEngine().Handler
	}
	return config
}

// details returns those of an error that a client got.
func details(tb testing.TB, err error) []proto.Message {
	tb.Helper()
	coded := (*connect.Error)(nil)
	if !errors.As(err, &coded) {
		tb.Fatalf("not a connect error: %v", err)
	}
	var all []proto.Message
	for _, d := range coded.Details() {
		m, failed := d.Value()
		if failed != nil {
			tb.Fatal(failed)
		}
		all = append(all, m)
	}
	return all
}

// want checks what a client got, and what was on the wire.
func (r *row) want(t *testing.T, err error) {
	t.Helper()
	coded := (*connect.Error)(nil)
	if !errors.As(err, &coded) || coded.Code() != r.code || coded.Message() != r.message {
		t.Fatalf("%s: got %v, want %v: %s", r.name, err, r.code, r.message)
	}
	var want []proto.Message
	if r.info != nil {
		want = append(want, r.info)
	}
	if r.retry {
		want = append(want, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	}
	if diff := cmp.Diff(want, details(t, err), protocmp.Transform()); diff != "" {
		t.Errorf("%s: details (-want +got):\n%s", r.name, diff)
	}
}

// wantChallenge checks that the challenge came exactly once and at its place.
func (r *row) wantChallenge(t *testing.T, c conntest.Case, p placing, raw *tap, err error) {
	t.Helper()
	var want []string
	if r.challenge != "" {
		want = []string{r.challenge}
	}
	header, trailer, all := raw.wire()
	if strings.Contains(all, "secret") {
		t.Errorf("%s: the wire has what is private: %s", r.name, all)
	}
	coded := (*connect.Error)(nil)
	errors.As(err, &coded)
	inHeader, inTrailer, inMeta := header.Values("WWW-Authenticate"), trailer.Values("WWW-Authenticate"), coded.Meta().Values("WWW-Authenticate")
	stream := c.Kind != connect.StreamTypeUnary
	switch {
	case p.engine || !p.gate || c.Protocol == conntest.GRPCWeb || c.Protocol == conntest.Connect && !stream:
		// A real header. The client has it in the error's metadata too.
		if len(inTrailer) != 0 {
			t.Errorf("%s: in the trailers: %q", r.name, inTrailer)
		}
		if !cmp.Equal(inHeader, want) {
			t.Errorf("%s: header %q, want %q", r.name, inHeader, want)
		}
	case c.Protocol == conntest.GRPC && c.Transport.HTTP2():
		// net/http drops it from trailers.
		want = nil
	default:
		if len(inHeader) != 0 {
			t.Errorf("%s: header %q without an Engine", r.name, inHeader)
		}
	}
	if !cmp.Equal(inMeta, want) {
		t.Errorf("%s: the error's metadata has %q, want %q", r.name, inMeta, want)
	}
}

// TestErrors: every row of the table, however the interceptor is installed: code, text,
// details and one challenge, and nothing of the server's own.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, p := range placings {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				policy := auth.NewPolicy().Allow("/conntest.v1.Echo/", auth.Scopes("read", "write"))
				srv := c.Start(t, p.config(auth.NewServerInterceptor(auth.AuthenticatorFunc(byRow), auth.WithPolicy(policy))))
				raw := &tap{client: srv.Client()}
				// Without compression the wire is legible.
				clients := conntest.NewClients(raw, srv.URL, c.Option(), connect.WithAcceptCompression("gzip", nil, nil))
				for _, r := range rows {
					err := clients.Do(t.Context(), c.Kind, http.Header{rowHeader: {r.name}}, "one").Err
					r.want(t, err)
					r.wantChallenge(t, c, p, raw, err)
				}
				if n := len(srv.Calls()); n != 0 {
					t.Errorf("%d handlers ran", n)
				}
			})
		})
	}
}

// TestNoPolicyRow: a policy that does not know the procedure refuses.
func TestNoPolicyRow(t *testing.T) {
	t.Parallel()
	r := row{name: "no policy", code: connect.CodePermissionDenied, message: "permission denied", info: info(auth.ReasonNoPolicy)}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, p := range placings {
			srv := c.Start(t, p.config(auth.NewServerInterceptor(auth.AuthenticatorFunc(byRow), auth.WithPolicy(auth.NewPolicy()))))
			raw := &tap{client: srv.Client()}
			err := conntest.NewClients(raw, srv.URL, c.Option()).Do(t.Context(), c.Kind, nil, "one").Err
			r.want(t, err)
			r.wantChallenge(t, c, p, raw, err)
		}
	})
}

// TestRealmAndDomain: both are set by options, and quoted.
func TestRealmAndDomain(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(byRow), auth.WithRealm(`a "b" \c, error="x"`), auth.WithErrorDomain("own.example"),
			auth.WithPolicy(auth.NewPolicy().Allow("/conntest.v1.Echo/", auth.Scopes(`x"y`))))
		srv := c.Start(t, behind(i, conntest.Config{}))
		raw := &tap{client: srv.Client()}
		err := conntest.NewClients(raw, srv.URL, c.Option()).Do(t.Context(), c.Kind, nil, "one").Err
		want := `Bearer realm="a \"b\" \\c, error=\"x\"", error="insufficient_scope", scope="x\"y"`
		if header, _, _ := raw.wire(); header.Get("WWW-Authenticate") != want {
			t.Errorf("got %s\nwant %s", header.Get("WWW-Authenticate"), want)
		}
		if got := details(t, err)[0].(*errdetails.ErrorInfo); got.GetDomain() != "own.example" {
			t.Error(got)
		}
	})
}

// events collects what an observer is told.
type events struct {
	mu   sync.Mutex
	list []auth.Event
}

func (e *events) option() auth.Option {
	return auth.WithObserver(func(_ context.Context, event auth.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.list = append(e.list, event)
	})
}

func (e *events) all() []auth.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

// reasons returns the events in short: "ok", reasons, "stream:" for open streams.
func (e *events) reasons() string {
	var all []string
	for _, event := range e.all() {
		s := string(event.Reason)
		if event.Err == nil {
			s = "ok"
		}
		if event.Stream {
			s = "stream:" + s
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// TestContextEndsDuringAuthentication: whoever asks is told that, not that the
// credential is bad, however the authenticator wraps it.
func TestContextEndsDuringAuthentication(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var seen events
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(func(ctx context.Context, _ *auth.Request) (*auth.Identity, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("%w: %w: %s", auth.ErrInvalid, ctx.Err(), private)
		}), seen.option())
		srv := c.Start(t, behind(i, conntest.Config{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Clients(srv).Do(ctx, c.Kind, nil, "one").Err
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("the client got %v", err)
		}
		time.Sleep(time.Second)
		observed := seen.all()[0].Err
		if code := connect.CodeOf(observed); code != connect.CodeDeadlineExceeded && code != connect.CodeCanceled {
			t.Errorf("the observer got %v", observed)
		}
		if strings.Contains(fmt.Sprint(observed), "secret") {
			t.Error(observed)
		}
	})
}

// TestReasonOf: it knows reasons on both sides, and nothing else.
func TestReasonOf(t *testing.T) {
	t.Parallel()
	foreign := connect.NewError(connect.CodeUnauthenticated, errors.New("no"))
	detail, err := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: "OTHER"})
	if err != nil {
		t.Fatal(err)
	}
	foreign.AddDetail(detail)
	for _, tt := range []struct {
		err  error
		want auth.Reason
	}{
		{nil, ""},
		{io.EOF, ""},
		{auth.ErrExpired, auth.ReasonExpired},
		{secretly(auth.ErrRevoked), auth.ReasonRevoked},
		{foreign, ""},
		{connect.NewError(connect.CodeInternal, auth.ErrDenied), auth.ReasonDenied},
	} {
		if got, ok := auth.ReasonOf(tt.err); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%v: %q, %v", tt.err, got, ok)
		}
	}
	if errors.Is(auth.ErrExpired, auth.ErrRevoked) || !errors.Is(secretly(auth.ErrExpired), auth.ErrExpired) {
		t.Error("errors.Is compares something else than reasons")
	}
}
