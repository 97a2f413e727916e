package chain_test

import (
	"errors"
	"testing"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"connectrpc.com/validate"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"go.opentelemetry.io/otel/trace"
)

// TestValidate: an interceptor of connectrpc.com/validate stands last. The message of a
// stream that it refuses ends the stream; spans, records and limits have counted it.
func TestValidate(t *testing.T) {
	t.Parallel()
	names := []string{"ada", "grace", "x"}
	for _, engine := range []bool{true, false} {
		t.Run(map[bool]string{true: "with an Engine", false: "without"}[engine], func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{})
				received := count(enough())
				limits := ratelimit.NewInterceptor(ratelimit.Rule{Name: "messages", On: ratelimit.ReceivedMessages, Limiter: received})
				config := conntest.Config{
					HandlerOptions: append(s.order(), limits.HandlerOption(), connect.WithInterceptors(validate.NewInterceptor())),
					Register:       registerGreeter,
				}
				if !engine {
					config.Wrap = s.deadlines.Handler
				}
				srv := s.start(t, c, config)
				replies, err := callGreeter(t.Context(), c.Kind, srv.URL, srv.Client(), names, c.Option(), as("ada"))
				wantCode(t, err, connect.CodeInvalidArgument)
				wantViolations(t, err)

				srv.WaitFor(func([]conntest.Call) bool { return len(s.records.all()) > 0 })
				s.wantTold(t, trace.SpanKindServer, "INVALID_ARGUMENT", "failed")
				want, sent := int64(1), "0"
				if c.Kind&connect.StreamTypeClient != 0 {
					want = 3
				}
				if c.Kind == connect.StreamTypeBidi {
					sent = "2"
					if replies != 2 {
						t.Errorf("%d replies came before the error", replies)
					}
				}
				told := s.records.all()[0]
				if got := received.taken.Load(); got != want || told["rpc.request.messages"] != string(rune('0'+want)) || told["rpc.response.messages"] != sent {
					t.Errorf("%d messages counted, want %d; the record has %s received and %s sent, want %s",
						got, want, told["rpc.request.messages"], told["rpc.response.messages"], sent)
				}
				if _, err := callGreeter(t.Context(), c.Kind, srv.URL, srv.Client(), names[:2], c.Option(), as("ada")); err != nil {
					t.Errorf("valid messages: %v", err)
				}
			})
		})
	}
}

// wantViolations checks that an error tells what is wrong.
func wantViolations(t *testing.T, err error) {
	t.Helper()
	e := (*connect.Error)(nil)
	if !errors.As(err, &e) || len(e.Details()) != 1 {
		t.Errorf("%v has no detail", err)
		return
	}
	detail, _ := e.Details()[0].Value()
	if violations, ok := detail.(*rules.Violations); !ok || len(violations.GetViolations()) != 1 {
		t.Errorf("the detail is %v", detail)
	}
}

// TestValidateBeforeAuth: without a gate, what stands in front of authentication tells
// strangers what it thinks of their messages; the gate refuses them before that.
func TestValidateBeforeAuth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		options func(*server) connect.HandlerOption
		want    connect.Code
	}{
		{"behind auth", func(s *server) connect.HandlerOption {
			return connect.WithInterceptors(s.auth, validate.NewInterceptor())
		}, connect.CodeUnauthenticated},
		{"in front of auth", func(s *server) connect.HandlerOption {
			return connect.WithInterceptors(validate.NewInterceptor(), s.auth)
		}, connect.CodeInvalidArgument},
		{"in front of auth with its gate", func(s *server) connect.HandlerOption {
			return connect.WithHandlerOptions(connect.WithInterceptors(validate.NewInterceptor()), s.auth.HandlerOption())
		}, connect.CodeUnauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			unary := []connect.StreamType{connect.StreamTypeUnary}
			conntest.Matrix{Transports: h1and2, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{})
				srv := s.start(t, c, conntest.Config{HandlerOptions: []connect.HandlerOption{tt.options(s)}, Register: registerGreeter})
				_, err := callGreeter(t.Context(), c.Kind, srv.URL, srv.Client(), []string{"x"}, c.Option())
				wantCode(t, err, tt.want)
			})
		})
	}
}
