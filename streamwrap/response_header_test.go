package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// recordingClient keeps the headers of HTTP responses.
type recordingClient struct {
	connect.HTTPClient
	header atomic.Pointer[http.Header]
}

func (c *recordingClient) Do(req *http.Request) (*http.Response, error) {
	res, err := c.HTTPClient.Do(req)
	if err == nil {
		header := res.Header.Clone()
		c.header.Store(&header)
	}
	return res, err
}

// TestSetResponseHeader: a real header, on every protocol, of successes and
// failures, from every hook that runs in time.
func TestSetResponseHeader(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	for _, tt := range []struct {
		name  string
		hooks func(set func(*streamwrap.Call)) streamwrap.Hooks[life]
		fails bool
	}{
		{"Open", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				set(call)
				return nil, nil, nil
			}}
		}, false},
		{"Open that refuses", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				set(call)
				return nil, nil, refusal
			}}
		}, true},
		{"Receive", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Receive: func(l *life, _ context.Context) error { set(l.call); return nil }}
		}, false},
		{"Received that refuses", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Received: func(l *life, _ context.Context, _ *streamwrap.Message) error { set(l.call); return refusal }}
		}, true},
		{"Send", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Send: func(l *life, _ context.Context, _ any) error { set(l.call); return nil }}
		}, false},
		{"Header", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Header: func(l *life, _ context.Context, _ http.Header) error { set(l.call); return nil }}
		}, false},
		{"Return of a failure", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{
				Received: func(*life, context.Context, *streamwrap.Message) error { return refusal },
				Header:   func(l *life, _ context.Context, _ http.Header) error { set(l.call); return nil },
			}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				first := once(func() error { return errors.New("first") })
				set := func(call *streamwrap.Call) {
					if first() != nil && !call.SetResponseHeader("Conntest-Set", "v") {
						t.Error("SetResponseHeader: too late")
					}
				}
				r := newRig(t, c, setup{server: tt.hooks(set)})
				client := &recordingClient{HTTPClient: r.Client()}
				clients := conntest.NewClients(client, r.URL, c.Option())
				reply := clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
				if (reply.Err != nil) != tt.fails {
					t.Errorf("call: %v", reply.Err)
				}
				header := client.header.Load()
				if header == nil || header.Get("Conntest-Set") != "v" || len(header.Values("Conntest-Set")) != 1 {
					t.Errorf("response headers %v", header)
				}
			})
		})
	}
}

// TestSetResponseHeaderTooLate: and on clients, where there is nothing to set.
func TestSetResponseHeaderTooLate(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		never := func(l *life, _ context.Context, m *streamwrap.Message) {
			if l.call.IsClient() && l.call.SetResponseHeader("A", "a") {
				t.Error("on a client")
			}
			if !l.call.IsClient() && c.Kind != connect.StreamTypeUnary && m.Err == nil && l.call.SetResponseHeader("A", "a") {
				t.Error("after the headers left")
			}
		}
		hooks := streamwrap.Hooks[life]{Sent: never, End: func(l *life, _ context.Context, _ *streamwrap.End) {
			late := l.call.IsClient() || c.Kind != connect.StreamTypeUnary // a unary response leaves later
			if late && l.call.SetResponseHeader("A", "a") {
				t.Error("in End")
			}
		}}
		r := newRig(t, c, setup{client: hooks, server: hooks})
		reply := r.do(t, nil, "one")
		if reply.Err != nil || reply.Header.Get("A") != "" {
			t.Errorf("%v, %v", reply.Err, reply.Header)
		}
	})
}
