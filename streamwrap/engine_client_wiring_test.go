package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineClientWirings: whatever part of an Engine a client has, and of which
// Engine, the server gets every message.
func TestEngineClientWirings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		clients func(s *conntest.Server, c conntest.Case) *conntest.Clients
	}{
		{"interceptor alone", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			return engineWiring{conn: true}.clients(s, c, s.Client(), streamwrap.NewEngine())
		}},
		{"interceptor and hooks", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			return engineWiring{conn: true, hooks: true}.clients(s, c, s.Client(), streamwrap.NewEngine())
		}},
		{"HTTPClient alone", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			return engineWiring{http: true}.clients(s, c, s.Client(), streamwrap.NewEngine())
		}},
		{"HTTPClient and hooks", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			return engineWiring{http: true, hooks: true}.clients(s, c, s.Client(), streamwrap.NewEngine())
		}},
		{"interceptor of another Engine", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			other := streamwrap.NewEngine().HTTPClient(s.Client())
			return engineWiring{conn: true}.clients(s, c, other, streamwrap.NewEngine())
		}},
		{"interceptor twice", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			e := streamwrap.NewEngine()
			return engineWiring{http: true, conn: true}.clients(s, c, s.Client(), e, connect.WithInterceptors(e))
		}},
		{"HTTPClient twice", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			e := streamwrap.NewEngine()
			return engineWiring{http: true, conn: true}.clients(s, c, e.HTTPClient(s.Client()), e)
		}},
		{"two Engines", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			inner := streamwrap.NewEngine().HTTPClient(s.Client())
			return engineWiring{http: true, conn: true}.clients(s, c, inner, streamwrap.NewEngine())
		}},
		{"two Engines, the interceptor's inside", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			e := streamwrap.NewEngine()
			outer := streamwrap.NewEngine().HTTPClient(e.HTTPClient(s.Client()))
			return engineWiring{conn: true}.clients(s, c, outer, e)
		}},
		{"somebody else's HTTPClient inside", func(s *conntest.Server, c conntest.Case) *conntest.Clients {
			return engineWiring{http: true, conn: true}.clients(s, c, &rawClient{HTTPClient: s.Client()}, streamwrap.NewEngine())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, sizes := range [][]int{nil, {0, 1}, {-1, 1, 0, 50 << 10, 1 << 10}} {
					want := uploadTo(t, c, bare(c), nil, sized(sizes...)...)
					clients := func(s *conntest.Server) *conntest.Clients { return tt.clients(s, c) }
					wantSame(t, uploadTo(t, c, clients, nil, sized(sizes...)...), want)
				}
			})
		})
	}
}

// TestEngineClientBehindOtherHTTPClients: somebody else's HTTPClient between
// connect and the Engine may count, change or keep what connect sends. Then all
// of it must pass there.
func TestEngineClientBehindOtherHTTPClients(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]func(io.ReadCloser) io.ReadCloser{
		"counts": func(b io.ReadCloser) io.ReadCloser { return b },
		"changes": func(b io.ReadCloser) io.ReadCloser {
			return xorBody{b}
		},
		"keeps": func(b io.ReadCloser) io.ReadCloser {
			all, _ := io.ReadAll(b)
			return io.NopCloser(bytes.NewReader(all))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var counted rawBody
				clients := func(s *conntest.Server) *conntest.Clients {
					e := streamwrap.NewEngine()
					inner := e.HTTPClient(s.Client())
					outer := roundTrips(func(r *http.Request) (*http.Response, error) {
						r = r.WithContext(r.Context())
						r.Body = body(rawReader{r.Body, &counted})
						if name == "changes" {
							r.Header.Set("Conntest-Xor", "yes")
						}
						return inner.Do(r)
					})
					return engineWiring{conn: true}.clients(s, c, outer, e)
				}
				want := uploadTo(t, c, bare(c), nil, sized(1, 100, 0, 1<<10)...)
				var log uploadLog
				srv := c.Start(t, conntest.Config{Service: log.service(), Wrap: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Header.Get("Conntest-Xor") != "" {
							r.Body = xorBody{r.Body}
						}
						next.ServeHTTP(w, r)
					})
				}})
				conn := clients(srv).Upload(t.Context(), c.Kind)
				for _, msg := range sized(1, 100, 0, 1<<10) {
					if err := conn.Send(msg); err != nil {
						t.Fatal(err)
					}
				}
				_ = conn.CloseRequest()
				if _, err := drain(conn); !errors.Is(err, io.EOF) {
					t.Errorf("Receive: %v", err)
				}
				_ = conn.CloseResponse()
				if !slices.EqualFunc(log.Messages(), want.messages, bytes.Equal) {
					t.Errorf("the handler got %d messages, want %d, or they differ", len(log.Messages()), len(want.messages))
				}
				if !bytes.Equal(counted.Bytes(), want.raw.Bytes()) {
					t.Errorf("the HTTPClient outside saw %d bytes of %d", len(counted.Bytes()), len(want.raw.Bytes()))
				}
			})
		})
	}
}

// xorBody is a body that somebody changes on its way.
type xorBody struct{ io.ReadCloser }

func (b xorBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	for i := range p[:n] {
		p[i] ^= 0x55
	}
	return n, err
}

// stalledClient is a transport that reads only so much of a request's body and
// then waits for the end of its context.
type stalledClient struct {
	read int
	body rawBody
}

func (c *stalledClient) Do(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	for len(c.body.Bytes()) < c.read {
		p := make([]byte, min(16<<10, c.read-len(c.body.Bytes())))
		n, err := r.Body.Read(p)
		c.body.add(p[:n])
		if err != nil {
			return nil, err
		}
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestEngineClientSendDoesNotWaitForTheTransport is the point of it: once the
// first message has left, Send returns although nobody reads.
func TestEngineClientSendDoesNotWaitForTheTransport(t *testing.T) {
	t.Parallel()
	for _, first := range []int{0, 1, 1 << 10} {
		t.Run(strconv.Itoa(first), func(t *testing.T) {
			t.Parallel()
			m := conntest.Matrix{Transports: h2, Codecs: conntest.AllCodecs(), Kinds: uploads}
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				frame := uploadTo(t, c, bare(c), nil, sized(first)...).raw.Bytes()
				e := streamwrap.NewEngine()
				transport := &stalledClient{read: len(frame)}
				clients := conntest.NewClients(e.HTTPClient(transport), "http://conntest.test", c.Option(), connect.WithInterceptors(e))
				conn := clients.Upload(ctx, c.Kind)
				sent := make(chan error, 1)
				go func() {
					for _, msg := range sized(first, 0, 1, 50<<10) {
						if err := conn.Send(msg); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				synctest.Wait()
				select {
				case err := <-sent:
					if err != nil {
						t.Errorf("Send: %v", err)
					}
				default:
					t.Error("Send waits for the transport")
				}
				if !bytes.Equal(transport.body.Bytes(), frame) {
					t.Errorf("the transport has %d bytes, want the first message's %d", len(transport.body.Bytes()), len(frame))
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// TestEngineNotInnermost: what stands further in than the Engine sees every message, as if
// the Engine were not there.
func TestEngineNotInnermost(t *testing.T) {
	t.Parallel()
	for name, chain := range map[string]func(e *streamwrap.Engine, log *wireLog) []connect.Interceptor{
		"in front": func(e *streamwrap.Engine, log *wireLog) []connect.Interceptor { return []connect.Interceptor{e, log} },
		"in the middle": func(e *streamwrap.Engine, log *wireLog) []connect.Interceptor {
			return []connect.Interceptor{newWireLog("outer"), e, log}
		},
		"in front of a foreign wrapper": func(e *streamwrap.Engine, log *wireLog) []connect.Interceptor {
			return []connect.Interceptor{e, foreignWrapper{}, log}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				t.Cleanup(settle)
				srv := c.Start(t, conntest.Config{})
				e, log := streamwrap.NewEngine(), newWireLog("inner")
				clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(chain(e, log)...))
				reply := clients.Do(t.Context(), c.Kind, nil, "one", "two", "three")
				if got := strings.Join(reply.Messages, ""); reply.Err != nil || got != "onetwothree" {
					t.Errorf("%q came back, and %v", got, reply.Err)
				}
				if len(log.lives) != 1 || len(log.lives[0].sent) != 3 {
					t.Errorf("further in %d RPCs were seen, want one with 3 messages", len(log.lives))
				}
			})
		})
	}
}
