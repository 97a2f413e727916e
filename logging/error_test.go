package logging_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// failWith makes a unary RPC through an interceptor.
func failWith(tb testing.TB, i connect.Interceptor, req connect.AnyRequest, err error) {
	tb.Helper()
	f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(conntest.Text("")), nil
	})
	_, _ = f(tb.Context(), req)
}

// failure returns an error with details.
func failure(tb testing.TB, text string, details ...proto.Message) *connect.Error {
	tb.Helper()
	err := connect.NewError(connect.CodeInternal, errors.New(text))
	for _, m := range details {
		detail, failed := connect.NewErrorDetail(m)
		if failed != nil {
			tb.Fatal(failed)
		}
		err.AddDetail(detail)
	}
	return err
}

// TestErrorText: as much of it as is asked for.
func TestErrorText(t *testing.T) {
	t.Parallel()
	secretive := record(func(r *dynamic) { r.set("open", "o").set("secret", secret) })
	for name, tt := range map[string]struct {
		opts []logging.Option
		want map[string]any
	}{
		"full":           {nil, map[string]any{"error.message": "the text"}},
		"code only":      {[]logging.Option{logging.WithErrorText(logging.CodeOnly)}, map[string]any{"error.message": nil, "error.details": nil}},
		"redacted":       {[]logging.Option{logging.WithErrorText(logging.RedactedText)}, map[string]any{"error.message": "[REDACTED]", "error.details": nil}},
		"dropped":        {[]logging.Option{logging.WithErrorText(logging.RedactedText), logging.WithRedaction(logging.Drop())}, map[string]any{"error.message": nil}},
		"its length":     {[]logging.Option{logging.WithErrorText(logging.RedactedText), logging.WithRedaction(logging.Length())}, map[string]any{"error.message": "[8 bytes]"}},
		"grpc, redacted": {[]logging.Option{logging.WithErrorText(logging.RedactedText), logging.WithGRPCKeys()}, map[string]any{"grpc.error": "[REDACTED]", "grpc.code": "Internal"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var j journal
			failWith(t, logging.NewInterceptor(j.logger(slog.LevelDebug), tt.opts...), conntest.UnaryRequest(t, false), failure(t, "the text", secretive))
			records := j.records(t, "")
			if len(records) != 1 {
				t.Fatal(&j)
			}
			want(t, records[0], tt.want)
			if leaks(j.String()) {
				t.Errorf("the secret is in %s", &j)
			}
			if name == "full" && !strings.Contains(j.String(), `"error.details":[{"@type":"logtest.Record","open":"o","secret":"[REDACTED]"}]`) {
				t.Errorf("no details in %s", &j)
			}
		})
	}
}

// TestErrorsAreBounded: a server does not choose how large the record of its client is.
func TestErrorsAreBounded(t *testing.T) {
	t.Parallel()
	var details []proto.Message
	for range 100 {
		details = append(details, wrapperspb.String(strings.Repeat("d", 10_000)))
	}
	var j journal
	failWith(t, logging.NewInterceptor(j.logger(slog.LevelDebug)), conntest.UnaryRequest(t, false), failure(t, strings.Repeat("ä", 10_000), details...))
	_ = j.only(t, "rpc")
	if n := len(j.String()); n > 5000 {
		t.Errorf("the record has %d bytes", n)
	}
}

// TestTextsAreUTF8: a peer writes no other bytes into records, which handlers that are
// not slog's own may refuse, such as a bridge to OTLP: with it a batch of others is lost.
func TestTextsAreUTF8(t *testing.T) {
	t.Parallel()
	const bad, good = "a\xff\xfe\nb", "a?\nb"
	conntest.Matrix{Transports: []conntest.Transport{conntest.H1, conntest.H2C}, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		seen := seen{discard: discard{slog.LevelDebug}}
		i := logging.NewInterceptor(slog.New(&seen), logging.WithRequestMetadata("x-*"))
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(slog.New(&seen))))
		srv := c.Start(t, conntest.Config{Wrap: engine.Handler, HandlerOptions: []connect.HandlerOption{i.HandlerOption()}})
		c.Clients(srv).Do(t.Context(), c.Kind, http.Header{"X-A": {"a\xff\xfeb"}}, "text")
		unseen{method: http.MethodGet, path: "/a%ff%fe%0ab"}.send(t, srv)
		synctest.Wait()
		seen.want(t, "rpc.request.metadata.x-a", "a?b")
		seen.want(t, "url.path", "/"+good)
	})
	for key, run := range map[string]connect.UnaryFunc{
		"error.message": func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return nil, connect.NewError(connect.CodeInternal, errors.New(bad))
		},
		"exception.message": func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { panic(bad) },
	} {
		seen := seen{discard: discard{slog.LevelDebug}}
		func() {
			defer func() { _ = recover() }()
			_, _ = logging.NewInterceptor(slog.New(&seen)).WrapUnary(run)(t.Context(), conntest.UnaryRequest(t, false))
		}()
		seen.want(t, key, good)
	}
	cut := seen{discard: discard{slog.LevelDebug}}
	failWith(t, logging.NewInterceptor(slog.New(&cut)), conntest.UnaryRequest(t, false), errors.New(strings.Repeat("\x80", 2<<10)))
	cut.want(t, "error.message", "?…")
}

// seen is a handler that keeps the texts of records as they are.
type seen struct {
	discard

	mu    sync.Mutex
	texts map[string]string
}

func (s *seen) Handle(_ context.Context, r slog.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts == nil {
		s.texts = make(map[string]string)
	}
	r.Attrs(func(a slog.Attr) bool {
		s.texts[a.Key] = a.Value.String()
		return true
	})
	return nil
}

func (s *seen) want(t *testing.T, key, want string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.texts[key]; got != want {
		t.Errorf("%s is %q, want %q", key, got, want)
	}
}

// TestPanicsOfHandlers: the record has the value if it is a text, the stack, and nothing
// of either unless the text of errors is asked for.
func TestPanicsOfHandlers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		value any
		opts  []logging.Option
		want  any
	}{
		"text":      {"boom", nil, "boom"},
		"error":     {fmt.Errorf("wrapped: %w", errors.New("boom")), nil, "wrapped: boom"},
		"other":     {struct{ Secret string }{secret}, nil, "struct { Secret string }"},
		"code only": {"boom", []logging.Option{logging.WithErrorText(logging.CodeOnly)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var j journal
			f := logging.NewInterceptor(j.logger(slog.LevelDebug), tt.opts...).WrapUnary(explode(tt.value))
			func() {
				defer func() {
					if p := recover(); p != tt.value {
						t.Errorf("the panic came out as %v", p)
					}
				}()
				_, _ = f(t.Context(), conntest.UnaryRequest(t, false))
			}()
			record := j.only(t, "rpc")
			want(t, record, map[string]any{
				"level": "ERROR", "connect.outcome": "panicked", "error.type": "panic", "exception.message": tt.want,
			})
			stack, _ := record["exception.stacktrace"].(string)
			if tt.want != nil && (!strings.Contains(stack, "explode") || len(stack) > 8<<10) || tt.want == nil && stack != "" {
				t.Errorf("the stack is %q", stack)
			}
			if leaks(j.String()) {
				t.Error(&j)
			}
		})
	}
}

// TestTextsThatPanic: an error whose text cannot be had, or a message that cannot be
// looked into, costs no record.
func TestTextsThatPanic(t *testing.T) {
	t.Parallel()
	var nobody *nameless
	var j journal
	i := logging.NewInterceptor(j.logger(slog.LevelDebug))
	failWith(t, i, conntest.UnaryRequest(t, false), connect.NewError(connect.CodeInternal, nobody))
	want(t, j.only(t, "rpc"), map[string]any{"rpc.response.status_code": "INTERNAL", "error.message": "", "log.panics": nil})
	if text, _ := logging.Renderer()(opaque{}, 100); text != "null" {
		t.Error(text)
	}
}

// nameless is an error that panics if it is nil.
type nameless struct{ text string }

func (n *nameless) Error() string { return n.text }

// opaque is a message that panics.
type opaque struct{ proto.Message }

// explode returns a handler that panics.
func explode(value any) connect.UnaryFunc {
	return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { panic(value) }
}
