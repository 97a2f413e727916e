package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// exchangeFacts is what an Exchange tells of itself.
func exchangeFacts(x *streamwrap.Exchange) string {
	major, minor := x.HTTPVersion()
	tls := "plain"
	if state := x.TLS(); state != nil {
		tls = "TLS"
		if !state.HandshakeComplete {
			tls = "broken TLS"
		}
	}
	return fmt.Sprintf("client %v: %s %s, %s, HTTP/%d.%d, %s, status %d",
		x.IsClient(), x.Method(), x.Path(), x.Protocol(), major, minor, tls, x.Status())
}

// TestEngineExchangeFacts: what both sides know of an exchange, while it runs and
// when it is over.
func TestEngineExchangeFacts(t *testing.T) {
	t.Parallel()
	conntest.Each(t, func(t *testing.T, c conntest.Case) {
		for _, fails := range []bool{false, true} {
			name := map[bool]string{false: "success", true: "failure"}[fails]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					e := streamwrap.NewEngine()
					var mu sync.Mutex
					at := make(map[string]string) // what was known in which hook
					note := func(hook string, call *streamwrap.Call) {
						mu.Lock()
						defer mu.Unlock()
						if x, ok := call.Exchange(); ok {
							at[hook] = exchangeFacts(x)
						}
					}
					observe := func(side string) (*streamwrap.Interceptor, func() *streamwrap.Exchange) {
						var x atomic.Pointer[streamwrap.Exchange]
						return streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
							Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
								note(side+" Open", call)
								return nil, &wireLife{call: call}, nil
							},
							Received: func(life *wireLife, _ context.Context, _ *streamwrap.Message) error {
								note(side+" Received", life.call)
								return nil
							},
							End: func(life *wireLife, _ context.Context, _ *streamwrap.End) {
								note(side+" End", life.call)
								if exchange, ok := life.call.Exchange(); ok {
									x.Store(exchange)
								}
							},
						}), x.Load
					}
					client, clientExchange := observe("client")
					server, serverExchange := observe("server")
					srv := c.Start(t, conntest.Config{
						Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)},
					})
					clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(client, e))
					header := http.Header{}
					if fails {
						header = conntest.WithFaults(conntest.Fail(connect.CodeResourceExhausted, "enough"))
					}
					reply := clients.Do(t.Context(), c.Kind, header, "one", "two")
					if (reply.Err != nil) != fails {
						t.Fatal(reply.Err)
					}
					call := srv.WaitCalls(1)[0]
					synctest.Wait()

					status := http.StatusOK
					if fails && c.Protocol == conntest.Connect && c.Kind == connect.StreamTypeUnary {
						status = http.StatusTooManyRequests
					}
					protocol := map[conntest.Protocol]string{
						conntest.Connect: connect.ProtocolConnect, conntest.GRPC: connect.ProtocolGRPC, conntest.GRPCWeb: connect.ProtocolGRPCWeb,
					}[c.Protocol]
					version, tls := "HTTP/1.1", "plain"
					if c.Transport.HTTP2() {
						version = "HTTP/2.0"
					}
					if c.Transport.TLS() {
						tls = "TLS"
					}
					want := func(client bool, version, tls string, status int) string {
						return fmt.Sprintf("client %v: POST %s, %s, %s, %s, status %d", client, call.Procedure, protocol, version, tls, status)
					}
					x, y := clientExchange(), serverExchange()
					if x == nil || y == nil {
						t.Fatalf("exchanges: %v, %v", x, y)
					}
					if got, want := exchangeFacts(x), want(true, version, tls, status); got != want {
						t.Errorf("in the end: %s\nwant %s", got, want)
					}
					if got, want := exchangeFacts(y), want(false, version, tls, status); got != want {
						t.Errorf("in the end: %s\nwant %s", got, want)
					}
					if got, want := at["server Open"], want(false, version, tls, 0); got != want {
						t.Errorf("in the handler's Open: %s\nwant %s", got, want)
					}
					if got, ok := at["client Open"]; ok {
						t.Errorf("in the client's Open: %s, want nothing", got)
					}
					if got, want := at["client Received"], want(true, version, tls, status); got != want {
						t.Errorf("in the client's Received: %s\nwant %s", got, want)
					}
					if got := x.RemoteAddr(); got != "192.0.2.1:80" {
						t.Errorf("the server is %q", got)
					}
					if got := y.RemoteAddr(); got != call.RemoteAddr {
						t.Errorf("the client is %q, want %q", got, call.RemoteAddr)
					}
					if got := y.RequestHeader().Get("User-Agent"); got != call.Header.Get("User-Agent") || got == "" {
						t.Errorf("the request's User-Agent is %q", got)
					}
					// It is over: nothing can be done to it any more.
					for side, x := range map[string]*streamwrap.Exchange{"client": x, "server": y} {
						if x.SetResponseHeader("A", "a") || x.Interrupt(errors.New("why")) {
							t.Errorf("%s: an exchange that is over can be changed", side)
						}
					}
					if y.Reset(errors.New("why")) || x.Reset(errors.New("why")) {
						t.Error("an exchange that is over can be reset")
					}
					if got := exchangeFacts(x); got != want(true, version, tls, status) {
						t.Errorf("afterwards: %s", got)
					}
				})
			})
		}
	})
}

// TestEngineExchangeOfRefusedRequests: a gate has the exchange too.
func TestEngineExchangeInGates(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var calls atomic.Int64
		gate := streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
				calls.Add(1)
				x, ok := call.Exchange()
				fromContext, found := streamwrap.ExchangeFromContext(ctx)
				if !ok || !found || x != fromContext || x.IsClient() || x.Status() != 0 || x.Path() != call.Procedure() {
					t.Errorf("in the gate: %v %v", x, fromContext)
				}
				if x.Received().Bytes != 0 {
					t.Errorf("in the gate: %d bytes were read", x.Received().Bytes)
				}
				return nil, nil, nil
			},
		})
		e := streamwrap.NewEngine()
		srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{gate.HandlerOption()}})
		if reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Error(reply.Err)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("Open ran %d times", n)
		}
	})
}

// TestEngineSetResponseHeader: the client sees it as a header of the response,
// once, on every protocol and kind, in successes and failures, from gates, hooks
// and other goroutines.
func TestEngineSetResponseHeader(t *testing.T) {
	t.Parallel()
	const key = "Conntest-Set"
	refusal := func() error {
		err := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
		err.Meta().Set("Conntest-Meta", "meta")
		return err
	}
	type hooks = streamwrap.Hooks[wireLife]
	open := func(f func(*streamwrap.Call) error) hooks {
		return hooks{Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
			return nil, &wireLife{call: call}, f(call)
		}}
	}
	from := func(h hooks) hooks {
		h.Open = func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
			return nil, &wireLife{call: call}, nil
		}
		return h
	}
	set := func(t *testing.T, call *streamwrap.Call) {
		t.Helper()
		if !call.SetResponseHeader(key, "wrong") || !call.SetResponseHeader(strings.ToLower(key), "set") {
			t.Error("SetResponseHeader: too late")
		}
	}
	for _, tt := range []struct {
		name  string
		gate  bool
		fails bool
		hooks func(t *testing.T) hooks
	}{
		{"gate", true, false, func(t *testing.T) hooks {
			return open(func(call *streamwrap.Call) error { set(t, call); return nil })
		}},
		{"gate that refuses", true, true, func(t *testing.T) hooks {
			return open(func(call *streamwrap.Call) error { set(t, call); return refusal() })
		}},
		{"Open", false, false, func(t *testing.T) hooks {
			return open(func(call *streamwrap.Call) error { set(t, call); return nil })
		}},
		{"Open that refuses", false, true, func(t *testing.T) hooks {
			return open(func(call *streamwrap.Call) error { set(t, call); return refusal() })
		}},
		{"Open, another goroutine", false, false, func(t *testing.T) hooks {
			return open(func(call *streamwrap.Call) error {
				var wg sync.WaitGroup
				wg.Go(func() { set(t, call) })
				wg.Wait()
				return nil
			})
		}},
		{"Received", false, false, func(t *testing.T) hooks {
			return from(hooks{Received: func(l *wireLife, _ context.Context, m *streamwrap.Message) error {
				if m.Seq == 1 && l.call.StreamType() != connect.StreamTypeBidi { // whose second Received is late
					set(t, l.call)
				} else if m.Seq == 1 {
					set(t, l.call)
				}
				return nil
			}})
		}},
		{"Received that refuses", false, true, func(t *testing.T) hooks {
			return from(hooks{Received: func(l *wireLife, _ context.Context, m *streamwrap.Message) error {
				if m.Seq != 1 {
					return nil
				}
				set(t, l.call)
				return refusal()
			}})
		}},
		{"Header", false, false, func(t *testing.T) hooks {
			return from(hooks{Header: func(l *wireLife, _ context.Context, _ http.Header) error { set(t, l.call); return nil }})
		}},
		{"Return that refuses", false, true, func(t *testing.T) hooks {
			return from(hooks{Return: func(l *wireLife, _ context.Context, _ error) error {
				if x, ok := l.call.Exchange(); ok {
					ok = x.SetResponseHeader(key, "set")
					if sent := x.Status() != 0; sent == ok {
						t.Errorf("SetResponseHeader: %v, though headers left: %v", ok, sent)
					}
				}
				return refusal()
			}})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				e := streamwrap.NewEngine()
				i := streamwrap.NewInterceptor(tt.hooks(t))
				option := connect.HandlerOption(connect.WithInterceptors(i))
				if tt.gate {
					option = i.HandlerOption()
				}
				srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{option}})
				tap := &rawClient{HTTPClient: srv.Client()}
				reply := conntest.NewClients(tap, srv.URL, c.Option()).Do(t.Context(), c.Kind, nil, "one", "two")
				if (reply.Err != nil) != tt.fails {
					t.Fatalf("reply: %v", reply.Err)
				}
				synctest.Wait()
				raw := tap.Exchanges()[0]
				late := tt.name == "Return that refuses" && c.Kind != connect.StreamTypeUnary // something was sent
				if values := raw.header.Values(key); !late && !slices.Equal(values, []string{"set"}) {
					t.Errorf("the response's header is %q", values)
				}
				if values := raw.res.Trailer.Values(key); len(values) != 0 {
					t.Errorf("the response's trailer is %q", values)
				}
				if !tt.fails {
					if values := reply.Header.Values(key); !slices.Equal(values, []string{"set"}) {
						t.Errorf("the client's user gets %q", values)
					}
					return
				}
				err, ok := errors.AsType[*connect.Error](reply.Err)
				if !ok || connect.CodeOf(err) != connect.CodePermissionDenied {
					t.Fatalf("reply: %v", reply.Err)
				}
				if values := err.Meta().Values(key); !late && !slices.Equal(values, []string{"set"}) {
					t.Errorf("the client's user gets %q", values)
				}
				if values := err.Meta().Values("Conntest-Meta"); !slices.Equal(values, []string{"meta"}) {
					t.Errorf("the error's own metadata is %q", values)
				}
			})
		})
	}
}

// TestEngineSetResponseHeaderRaces: the last value for which SetResponseHeader
// reported true is the one that left, whoever set it and when.
func TestEngineSetResponseHeaderRaces(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for turns := range 15 {
			e := streamwrap.NewEngine()
			var wg sync.WaitGroup
			var last atomic.Int64
			i := streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
				Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
					x, _ := call.Exchange()
					wg.Go(func() {
						for n := int64(1); x.SetResponseHeader("Conntest-Set", strconv.FormatInt(n, 10)); n++ {
							last.Store(n)
						}
					})
					jitter(turns)
					return nil, nil, nil
				},
			})
			srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}})
			tap := &rawClient{HTTPClient: srv.Client()}
			if reply := conntest.NewClients(tap, srv.URL, c.Option()).Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
				t.Fatal(reply.Err)
			}
			wg.Wait()
			want := []string{strconv.FormatInt(last.Load(), 10)}
			if last.Load() == 0 {
				want = nil
			}
			if got := tap.Exchanges()[0].header.Values("Conntest-Set"); !slices.Equal(got, want) {
				t.Errorf("the response has %q, want %q", got, want)
			}
		}
	})
}
