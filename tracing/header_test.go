package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// answering is a service whose unary handlers set a header wherever that is possible,
// and then may fail.
func answering(header string, err error) conntest.Service {
	return conntest.Service{
		Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			info, _ := connect.CallInfoForHandlerContext(ctx)
			info.ResponseHeader().Add(header, "call")
			if err != nil {
				return nil, err
			}
			res := connect.NewResponse(req.Msg)
			res.Header().Add(header, "response")
			res.Header().Add(header, "again")
			return res, nil
		},
		Client: func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			stream.Conn().ResponseHeader().Add(header, "call")
			if err != nil {
				return nil, err
			}
			res := connect.NewResponse(&conntest.Message{})
			res.Header().Add(header, "response")
			res.Header().Add(header, "again")
			return res, nil
		},
	}
}

// TestResponseHeadersOfHandlers: those of the response and those of the call, as the
// client gets them, but not those of a response that is not sent.
func TestResponseHeadersOfHandlers(t *testing.T) {
	t.Parallel()
	const name = "X-Answer"
	refusing := streamwrap.NewInterceptor(streamwrap.Hooks[int]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *int, error) { return nil, new(int), nil },
		Send: func(*int, context.Context, any) error { return errors.New("no") },
	})
	for _, tt := range []struct {
		name    string
		err     error
		inside  connect.Interceptor
		want    []string
		streams []string // want of a client stream, which connect puts together before it sends
	}{
		{name: "success", want: []string{"call", "response", "again"}, streams: []string{"call", "response", "again"}},
		{name: "error", err: errors.New("no"), want: []string{"call"}, streams: []string{"call"}},
		{name: "refused further in", inside: refusing, want: []string{"call"}, streams: []string{"call", "response", "again"}},
	} {
		for _, observed := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{
					Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeClient},
				}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					client, server := observe(tracing.WithResponseHeaders(name)), observe(tracing.WithResponseHeaders(name))
					config := serving(server)
					if tt.inside != nil {
						config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(tt.inside))
					}
					if observed {
						config = behind(config, server)
					}
					config.Service = answering(name, tt.err)
					reply := c.Clients(c.Start(t, config), connect.WithInterceptors(client)).Do(t.Context(), c.Kind, nil, "a")
					if failed := reply.Err != nil; failed != (tt.err != nil || tt.inside != nil) {
						t.Fatal(reply.Err)
					}
					want := tt.want
					if c.Kind == connect.StreamTypeClient {
						want = tt.streams
					}
					synctest.Wait()
					if got := headerOf(server.only(t, trace.SpanKindServer), name); !slices.Equal(got, want) {
						t.Errorf("the handler tells of %q, want %q", got, want)
					}
					if got := headerOf(client.only(t, trace.SpanKindClient), name); !slices.Equal(got, want) {
						t.Errorf("the client tells of %q, want %q", got, want)
					}
				})
			})
		}
	}
}

// headerOf returns a header that a span tells of.
func headerOf(s sdktrace.ReadOnlySpan, name string) []string {
	set := attribute.NewSet(s.Attributes()...)
	v, _ := set.Value(attribute.Key("rpc.response.metadata." + strings.ToLower(name)))
	return v.AsStringSlice()
}

// TestHeadersAreText: what is not UTF-8 in the other side's headers does not reach spans:
// protobuf refuses it, and with it OTLP's exporters all spans of a batch.
func TestHeadersAreText(t *testing.T) {
	t.Parallel()
	const header, sent = "X-Text", "a\xffb"
	conntest.Matrix{
		Transports: []conntest.Transport{conntest.H1, conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeClient},
	}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client, server := observe(tracing.WithResponseHeaders(header)), observe(tracing.WithRequestHeaders(header))
		config := serving(server)
		config.Service = answering(header, nil)
		config.Wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(header, sent)
				next.ServeHTTP(w, r)
			})
		}
		clients := c.Clients(c.Start(t, config), connect.WithInterceptors(client))
		if err := clients.Do(t.Context(), c.Kind, http.Header{header: {sent}}, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		request := attribute.NewSet(server.only(t, trace.SpanKindServer).Attributes()...)
		if got, _ := request.Value("rpc.request.metadata.x-text"); !slices.Equal(got.AsStringSlice(), []string{"ab"}) {
			t.Errorf("the server's span has %q", got.AsStringSlice())
		}
		if got := headerOf(client.only(t, trace.SpanKindClient), header); len(got) == 0 || got[0] != "ab" {
			t.Errorf("the client's span has %q", got)
		}
	})
}

// TestB04RequestHeadersAreReadByTheirOwner: not when the context ends, while the user
// still sets them.
func TestB04RequestHeadersAreReadByTheirOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := observe(tracing.WithRequestHeaders("X-One"), tracing.WithResponseHeaders("X-Two"))
		srv := conntest.Start(t, conntest.Config{})
		clients := srv.Clients(connect.WithInterceptors(client))
		for i := range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			stream := clients.Bidi.CallBidiStream(ctx)
			go cancel()
			for n := range 20 {
				stream.RequestHeader().Set("X-One", fmt.Sprint(i, n))
			}
			_ = stream.Send(conntest.Text("a"))
			_, _ = stream.Receive()
			_ = stream.CloseRequest()
			_ = stream.CloseResponse()
		}
		stream := clients.Bidi.CallBidiStream(t.Context())
		stream.RequestHeader().Set("X-One", "told")
		if err := stream.Send(conntest.Text("a")); err != nil {
			t.Fatal(err)
		}
		_ = stream.CloseRequest()
		_, _ = stream.Receive()
		_, _ = stream.Receive()
		synctest.Wait()
		spans := client.ended(t, trace.SpanKindClient)
		if len(spans) != 201 {
			t.Errorf("%d spans, want 201", len(spans))
		}
		if got := value(spans[len(spans)-1], "rpc.request.metadata.x-one"); got != `["told"]` {
			t.Errorf("the header is %s", got)
		}
	})
}
