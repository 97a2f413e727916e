package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

const (
	headerKey  = conntest.HeaderPrefix + "A"
	trailerKey = conntest.TrailerPrefix + "B"
)

// metadata asks the echo service for a response header and a trailer.
func metadata() http.Header {
	return http.Header{headerKey: {"a"}, trailerKey: {"b"}, conntest.CountHeader: {"1"}}
}

// TestResponseMetadataOnClients: the headers are there from the first Received
// on (with a server stream, whose Send waits for them, from its Sent on), the
// trailers once a Receive had an error; before that they are not, and never is
// anybody kept waiting.
func TestResponseMetadataOnClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fails bool
		chain func(*probe) connect.Option
	}{
		{"success", false, nil},
		{"error", true, nil},
		{"success, outside of a foreign wrapper", false, chains[2].chain},
		{"error, outside of a foreign wrapper", true, chains[2].chain},
		{"success, split by a foreign wrapper", false, chains[1].chain},
		{"error, split by a foreign wrapper", true, chains[1].chain},
	} {
		fails := tt.fails
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				check := func(when string, call *streamwrap.Call, headers, trailers bool) {
					h, ok := call.ResponseHeader()
					if ok != headers || ok && h.Get(headerKey) != "a" && !fails {
						t.Errorf("%s: ResponseHeader %v, %v; want %v", when, h, ok, headers)
					}
					tr, ok := call.ResponseTrailer()
					if ok != trailers || ok && tr.Get(trailerKey) != "b" && !fails {
						t.Errorf("%s: ResponseTrailer %v, %v; want %v", when, tr, ok, trailers)
					}
				}
				unary, server := c.Kind == connect.StreamTypeUnary, c.Kind == connect.StreamTypeServer
				received := 0
				hooks := streamwrap.Hooks[life]{
					Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
						check("Open", call, false, false)
						return nil, nil, nil
					},
					Header: func(l *life, _ context.Context, _ http.Header) error {
						check("Header", l.call, false, false)
						return nil
					},
					Send: func(l *life, _ context.Context, _ any) error {
						check("Send", l.call, received > 0, false)
						return nil
					},
					Sent: func(l *life, _ context.Context, m *streamwrap.Message) {
						if server {
							check("Sent", l.call, true, false)
						}
					},
					Received: func(l *life, _ context.Context, m *streamwrap.Message) error {
						received++
						switch {
						case unary && fails: // they are in the error
							check("Received an error", l.call, false, false)
							e, _ := errors.AsType[*connect.Error](m.Err)
							if e.Meta().Get(headerKey) != "a" || e.Meta().Get(trailerKey) != "b" {
								t.Errorf("Meta %v", e.Meta())
							}
						case unary:
							check("Received", l.call, true, true)
						default:
							check("Received", l.call, true, m.Err != nil)
						}
						return nil
					},
					Return: func(l *life, _ context.Context, err error) error {
						check("Return", l.call, !unary || !fails, !unary || !fails)
						return err
					},
					End: func(l *life, _ context.Context, _ *streamwrap.End) {
						check("End", l.call, !unary || !fails, !unary || !fails)
					},
				}
				r := newRig(t, c, setup{client: hooks, clientChain: tt.chain})
				header := metadata()
				if fails {
					conntest.Fail(connect.CodeAborted, "no").After(1).Add(header)
				}
				reply := r.do(t, header, "one")
				if (reply.Err != nil) != fails {
					t.Errorf("call: %v", reply.Err)
				}
			})
		})
	}
}

// TestErrorMetadata: an error arrives with the response's headers and trailers,
// as without us, and Return and End see the very same error.
func TestErrorMetadata(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var returned error
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Return: func(_ *life, _ context.Context, err error) error { returned = err; return err },
		}})
		header := metadata()
		conntest.Fail(connect.CodeAborted, "no").After(1).Add(header)
		reply := r.do(t, header, "one")
		wantServerError(t, reply.Err)
		e, _ := errors.AsType[*connect.Error](reply.Err)
		for key, want := range map[string]string{headerKey: "a", trailerKey: "b"} {
			if got := e.Meta().Values(key); !slices.Contains(got, want) {
				t.Errorf("Meta %s: %q", key, got)
			}
		}
		if end := r.client.Life(t).End(); returned != reply.Err || end.Err != reply.Err {
			t.Errorf("Return had %v, End %v, the caller %v", returned, end.Err, reply.Err)
		}
	})
}

// TestMetadataOnHandlers: request headers are there at once; response headers
// may be set until the first message leaves, trailers until Return has run.
func TestMetadataOnHandlers(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		name := map[bool]string{false: "success", true: "error"}[fails]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				setHeader := func(when string, call *streamwrap.Call) {
					h, ok := call.ResponseHeader()
					if !ok {
						t.Errorf("%s: no ResponseHeader", when)
						return
					}
					h.Set("Conntest-Header-In-"+when, when)
				}
				setTrailer := func(when string, call *streamwrap.Call) {
					tr, ok := call.ResponseTrailer()
					if !ok {
						t.Errorf("%s: no ResponseTrailer", when)
						return
					}
					tr.Set("Conntest-Trailer-In-"+when, when)
				}
				r := newRig(t, c, setup{server: streamwrap.Hooks[life]{
					Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
						if got := call.RequestHeader().Get(headerKey); got != "a" {
							t.Errorf("Open: request header %q", got)
						}
						setHeader("Open", call)
						setTrailer("Open", call)
						return nil, nil, nil
					},
					Header: func(l *life, _ context.Context, h http.Header) error {
						h.Set("Conntest-Header-In-Header", "Header")
						return nil
					},
					Return: func(l *life, _ context.Context, err error) error {
						setTrailer("Return", l.call)
						return err
					},
				}})
				header := metadata()
				if fails {
					conntest.Fail(connect.CodeAborted, "no").After(1).Add(header)
				}
				reply := r.do(t, header, "one")
				if (reply.Err != nil) != fails {
					t.Fatalf("call: %v", reply.Err)
				}
				headers, trailers := reply.Header, reply.Trailer
				if fails {
					e, _ := errors.AsType[*connect.Error](reply.Err)
					headers, trailers = e.Meta(), e.Meta()
				}
				for _, in := range []string{"Open", "Header"} {
					if got := headers.Values("Conntest-Header-In-" + in); len(got) != 1 || got[0] != in {
						t.Errorf("header set in %s: %q", in, got)
					}
				}
				for _, in := range []string{"Open", "Return"} {
					if got := trailers.Values("Conntest-Trailer-In-" + in); len(got) != 1 || got[0] != in {
						t.Errorf("trailer set in %s: %q", in, got)
					}
				}
			})
		})
	}
}
