package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestRequestHeaders: what Open stages and what Header sets arrives, once; what
// the caller sets, at whatever moment, is never doubled.
func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	const ours, shared, decided = "Conntest-Ours", "Conntest-Shared", "Conntest-Decided"
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				h := call.RequestHeader()
				if h == nil {
					t.Error("Open: nil RequestHeader")
				}
				h.Set(ours, "open")
				if c.Kind != connect.StreamTypeUnary { // there the caller's are in the map already
					h.Set(shared, "open")
				}
				return nil, nil, nil
			},
			Header: func(l *life, _ context.Context, h http.Header) error {
				if got := h.Values(shared); len(got) != 1 || got[0] != "caller" {
					t.Errorf("Header: %q", got)
				}
				if got := h.Get(ours); got != "open" {
					t.Errorf("Header: staged %q", got)
				}
				h.Set(decided, "header of "+h.Get(shared))
				if got := l.call.RequestHeader().Get(decided); got == "" {
					t.Error("Header's map is not Call.RequestHeader")
				}
				return nil
			},
		}})
		reply := r.do(t, http.Header{shared: {"caller"}}, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		got := r.Calls()[0].Header
		for key, want := range map[string]string{ours: "open", shared: "caller", decided: "header of caller"} {
			if values := got.Values(key); len(values) != 1 || values[0] != want {
				t.Errorf("%s: %q, want %q", key, values, want)
			}
		}
	})
}

// TestRequestHeadersOfEmptyStreams: Header also runs if no message is sent
// first, or at all.
func TestRequestHeadersOfEmptyStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		open func(conn connect.StreamingClientConn) error
		want string
	}{
		{"Send nil", func(conn connect.StreamingClientConn) error { return conn.Send(nil) }, "Open Header Receive"},
		{"CloseRequest", func(connect.StreamingClientConn) error { return nil }, "Open Header Receive"},
		{"Send", func(conn connect.StreamingClientConn) error { return conn.Send(conntest.Text("one")) }, "Open Send Header Sent(1) Receive"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
					Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
						call.RequestHeader().Set("Conntest-Staged", "staged")
						return nil, nil, nil
					},
					Header: func(_ *life, _ context.Context, h http.Header) error {
						h.Set("Conntest-Token", "token")
						return nil
					},
				}})
				conn := r.unopened(t.Context())
				if err := errors.Join(tt.open(conn), conn.CloseRequest()); err != nil {
					t.Fatal(err)
				}
				_, err := drain(conn)
				wantEOF(t, "Receive", err)
				got := r.WaitCalls(1)[0].Header
				if got.Get("Conntest-Token") != "token" || got.Get("Conntest-Staged") != "staged" {
					t.Errorf("headers %v", got)
				}
				if line := r.client.Life(t).String(); !strings.HasPrefix(line, tt.want) {
					t.Errorf("got %s, want %s…", line, tt.want)
				}
			})
		})
	}
}

// TestCallInfoOfClients: NewClientContext works through us as it does alone.
func TestCallInfoOfClients(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set(headerKey, "a")
		info.RequestHeader().Set(trailerKey, "b")
		reply := r.clients.Do(ctx, c.Kind, nil, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if got := r.WaitCalls(1)[0].Header.Values(headerKey); len(got) != 1 {
			t.Errorf("request header %q", got)
		}
		if c.Kind != connect.StreamTypeUnary { // the generic call leaves them in the response there
			if info.ResponseHeader().Get(headerKey) != "a" || info.ResponseTrailer().Get(trailerKey) != "b" {
				t.Errorf("CallInfo: %v, %v", info.ResponseHeader(), info.ResponseTrailer())
			}
		}
		if info.Spec().Procedure != r.client.Life(t).call.Procedure() || info.Peer().Addr == "" {
			t.Errorf("CallInfo: %+v, %+v", info.Spec(), info.Peer())
		}
	})
}

// TestConnsKeepTheirFacts: what the stream's user asks the conn is what connect
// says.
func TestConnsKeepTheirFacts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		bare := c.Clients(r.Server)
		of := func(clients *conntest.Clients) (connect.Spec, connect.Peer, int) {
			var conn connect.StreamingClientConn
			switch c.Kind {
			case connect.StreamTypeClient:
				conn, _ = clients.Client.CallClientStream(t.Context()).Conn()
			case connect.StreamTypeBidi:
				conn, _ = clients.Bidi.CallBidiStream(t.Context()).Conn()
			default:
				stream, err := clients.Server.CallServerStream(t.Context(), connect.NewRequest(conntest.Text("")))
				if err != nil {
					t.Fatal(err)
				}
				conn, _ = stream.Conn()
				defer func() { _, _ = drain(conn) }()
			}
			return conn.Spec(), conn.Peer(), len(conn.RequestHeader())
		}
		spec, peer, headers := of(r.clients)
		wantSpec, wantPeer, wantHeaders := of(bare)
		if spec != wantSpec || peer.Addr != wantPeer.Addr || peer.Protocol != wantPeer.Protocol || headers != wantHeaders {
			t.Errorf("%+v, %+v, %d headers; want %+v, %+v, %d", spec, peer, headers, wantSpec, wantPeer, wantHeaders)
		}
	})
}

// TestGet: an idempotent unary call may travel as a GET.
func TestGet(t *testing.T) {
	t.Parallel()
	const path = "/conntest.v1.Get/Unary"
	idempotent := connect.WithIdempotency(connect.IdempotencyNoSideEffects)
	conntest.Matrix{Transports: web, Kinds: unaryKind, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var method string
		r := newRig(t, c, setup{
			client: streamwrap.Hooks[life]{Header: func(_ *life, _ context.Context, h http.Header) error {
				h.Set("Conntest-Token", "token")
				return nil
			}},
			config: conntest.Config{
				Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
					mux.Handle(path, connect.NewUnaryHandler(path,
						func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
							method = req.HTTPMethod()
							return connect.NewResponse(req.Msg), nil
						}, append(opts, idempotent)...))
				},
			},
		})
		client := connect.NewClient[conntest.Message, conntest.Message](r.Client(), r.URL+path,
			c.Option(), connect.WithHTTPGet(), idempotent, connect.WithInterceptors(r.client))
		if _, err := client.CallUnary(t.Context(), connect.NewRequest(conntest.Text("one"))); err != nil || method != http.MethodGet {
			t.Errorf("%s: %v", method, err)
		}
		if got := r.WaitCalls(1)[0].Header.Get("Conntest-Token"); got != "token" {
			t.Errorf("header %q", got)
		}
		r.client.wantEnd(t, "completed 1/1")
		r.server.wantEnd(t, "completed 1/1")
	})
}

// TestResponseOfRefusedRPC: what a hook refuses to send is no response.
func TestResponseOfRefusedRPC(t *testing.T) {
	t.Parallel()
	type rpc struct{ call *streamwrap.Call }
	refuse := errors.New("refused")
	for name, hooks := range map[string]streamwrap.Hooks[rpc]{
		"Send":   {Send: func(*rpc, context.Context, any) error { return refuse }},
		"Header": {Header: func(*rpc, context.Context, http.Header) error { return refuse }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ended := false
				hooks.Open = func(_ context.Context, call *streamwrap.Call) (context.Context, *rpc, error) {
					return nil, &rpc{call}, nil
				}
				hooks.End = func(r *rpc, _ context.Context, e *streamwrap.End) {
					ended = true
					if res, ok := r.call.Response(); ok || e.Err == nil {
						t.Errorf("ended with %v and the response %v", e.Err, res)
					}
				}
				i := streamwrap.NewInterceptor(hooks)
				srv := conntest.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}})
				if reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "text"); reply.Err == nil {
					t.Error("not refused")
				}
				srv.WaitCalls(1)
				synctest.Wait()
				if !ended {
					t.Error("no end")
				}
			})
		})
	}
}

// TestResponse: the response of a unary RPC is known once there is one, on both sides,
// and never that of a stream or of an RPC that failed.
func TestResponse(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, fails := range []bool{false, true} {
			type rpc struct{ call *streamwrap.Call }
			returned := 0
			i := streamwrap.NewInterceptor(streamwrap.Hooks[rpc]{
				Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *rpc, error) {
					if _, ok := call.Response(); ok {
						t.Error("there is a response before the RPC")
					}
					return nil, &rpc{call}, nil
				},
				Return: func(r *rpc, _ context.Context, err error) error {
					returned++
					res, ok := r.call.Response()
					if ok != (c.Kind == connect.StreamTypeUnary && !fails) {
						t.Errorf("client %v: a response: %v", r.call.IsClient(), ok)
					}
					if ok && (res.Header().Get(headerKey) != "a" || res.Trailer().Get(trailerKey) != "b") {
						t.Errorf("client %v: %v, %v", r.call.IsClient(), res.Header(), res.Trailer())
					}
					return err
				},
			})
			srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}})
			h := metadata()
			if fails {
				conntest.Fail(connect.CodeInternal, "no").Add(h)
			}
			c.Clients(srv, connect.WithInterceptors(i)).Do(t.Context(), c.Kind, h, "text")
			srv.WaitCalls(1)
			if returned != 2 {
				t.Errorf("%d Return hooks ran", returned)
			}
		}
	})
}
