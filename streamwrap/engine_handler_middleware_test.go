package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// exclusive is a ResponseWriter that must be used by one goroutine at a time, as
// all may be.
type exclusive struct {
	tb     testing.TB
	header http.Header
	using  atomic.Bool
}

func (w *exclusive) use(what string) {
	if w.using.Swap(true) {
		w.tb.Errorf("%s while another goroutine uses the ResponseWriter", what)
	}
	for range 10 {
		runtime.Gosched()
	}
	w.using.Store(false)
}

func (w *exclusive) Header() http.Header { return w.header }

func (w *exclusive) WriteHeader(status int) { w.use("WriteHeader " + strconv.Itoa(status)) }

func (w *exclusive) Write(p []byte) (int, error) {
	w.use("Write")
	return len(p), nil
}

func (w *exclusive) Flush() { w.use("Flush") }

// TestEngineWritesFromOneGoroutineAtATime: whatever a handler does in a burst.
func TestEngineWritesFromOneGoroutineAtATime(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(http.ResponseWriter){
		"messages":      func(http.ResponseWriter) {},
		"superfluous":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) },
		"informational": func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints) },
		"large":         func(w http.ResponseWriter) { _, _ = w.Write([]byte(envelope(strings.Repeat("x", 10_000)))) },
		"trailers":      func(w http.ResponseWriter) { w.Header().Set(http.TrailerPrefix+"A", "a") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &exclusive{tb: t, header: make(http.Header)}
			serving(w, conntest.GRPC, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				for range 500 {
					_, _ = w.Write([]byte(envelope("message")))
					w.(http.Flusher).Flush()
					then(w)
				}
			}), streamwrap.WithSendBuffer(8<<10))
		})
	}
}

// TestEngineAndTimeoutHandler: net/http's TimeoutHandler buffers, on either side.
func TestEngineAndTimeoutHandler(t *testing.T) {
	t.Parallel()
	timeout := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Second, "too slow") }
	for _, tt := range []struct {
		name string
		ours conntest.Config
	}{
		{"inside", behindEngine(conntest.Config{Wrap: timeout})},
		{"outside", around(behindEngine(conntest.Config{}), timeout)},
		{"both", around(behindEngine(conntest.Config{Wrap: timeout}), timeout)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, fault := range []conntest.Fault{{}, conntest.Delay(time.Hour), conntest.Fail(connect.CodeAborted, "no")} {
				conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					do := func(config conntest.Config) string {
						config.TuneServer = quietly
						reply := c.Clients(c.Start(t, config)).Do(t.Context(), c.Kind, conntest.WithFaults(fault), "one")
						text := fmt.Sprintf("%q %v", reply.Messages, reply.Err)
						return strings.ReplaceAll(text, "*streamwrap.responseWriter", "*http.timeoutWriter")
					}
					if got, want := do(tt.ours), do(conntest.Config{Wrap: timeout}); got != want {
						t.Errorf("%s, bare %s", got, want)
					}
				})
			}
		})
	}
}

// TestEngineBehindProxies: what the Engine sends passes through net/http's
// reverse proxy, and the Engine passes on what a proxy behind it sends.
func TestEngineBehindProxies(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("proxy in front %v", before), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				config := conntest.Config{}
				if before {
					config = behindEngine(config)
				}
				backend := c.Start(t, config)
				proxying := conntest.Config{Wrap: func(http.Handler) http.Handler { return proxyTo(backend) }}
				if !before {
					proxying = behindEngine(proxying)
				}
				proxy := c.Start(t, proxying)
				clients := c.Clients(proxy)
				header := http.Header{headerKey: {"h"}, trailerKey: {"t"}, conntest.CountHeader: {"8"}}
				for _, messages := range [][]string{{"one"}, {strings.Repeat("one", 20_000), "two", "three"}} {
					reply := clients.Do(t.Context(), c.Kind, header, messages...)
					want := c.Clients(backend).Do(t.Context(), c.Kind, header, messages...)
					if reply.Err != nil || fmt.Sprint(reply.Messages) != fmt.Sprint(want.Messages) {
						t.Errorf("%d messages, %v, directly %d", len(reply.Messages), reply.Err, len(want.Messages))
					}
					if reply.Header.Get(headerKey) != "h" || reply.Trailer.Get(trailerKey) != "t" {
						t.Errorf("header %v, trailer %v", reply.Header, reply.Trailer)
					}
				}
				if c.Kind == connect.StreamTypeBidi {
					return // net/http's proxy may wait for the end of a request that nobody wants
				}
				fails := conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no"))
				wantCode(t, "failure", clients.Do(t.Context(), c.Kind, fails, "one").Err, connect.CodeAborted)
			})
		})
	}
}

// TestEngineBehindProxyIsLive: a ping-pong works through a proxy on either side.
func TestEngineBehindProxyIsLive(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		backend := c.Start(t, behindEngine(conntest.Config{}))
		proxy := c.Start(t, behindEngine(conntest.Config{Wrap: func(http.Handler) http.Handler { return proxyTo(backend) }}))
		stream := c.Clients(proxy).Bidi.CallBidiStream(t.Context())
		start := time.Now()
		for i := range 20 {
			if err := stream.Send(conntest.Text(strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
			if msg, err := stream.Receive(); err != nil || string(msg.GetValue()) != strconv.Itoa(i) {
				t.Fatalf("%v, %v", msg, err)
			}
		}
		promptly(t, "20 round trips", start)
		_ = stream.CloseRequest()
		if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("Receive: %v", err)
		}
	})
}

// statusWriter is somebody's middleware for access logs.
type statusWriter struct {
	http.ResponseWriter

	status  int
	bytes   int64
	flushes int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *statusWriter) Flush() {
	w.flushes++
	w.ResponseWriter.(http.Flusher).Flush()
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestEngineBetweenMiddleware: ResponseWriters of others, on both sides, see the
// same response.
func TestEngineBetweenMiddleware(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var inside, outside *statusWriter
		logging := func(w **statusWriter) func(http.Handler) http.Handler {
			return func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					*w = &statusWriter{ResponseWriter: rw}
					next.ServeHTTP(*w, r)
				})
			}
		}
		var x *streamwrap.Exchange
		config := behindEngine(conntest.Config{Wrap: logging(&inside)},
			streamwrap.WithExchangeObserver(func(_ context.Context, exchange *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
				x = exchange
				return nil, nil
			}))
		srv := c.Start(t, around(config, logging(&outside)))
		header := http.Header{headerKey: {"h"}, trailerKey: {"t"}, conntest.CountHeader: {"15"}}
		want := c.Clients(c.Start(t, conntest.Config{})).Do(t.Context(), c.Kind, header, "one", "two")
		reply := c.Clients(srv).Do(t.Context(), c.Kind, header, "one", "two")
		srv.WaitCalls(1)
		if reply.Err != nil || fmt.Sprint(reply.Messages) != fmt.Sprint(want.Messages) ||
			reply.Header.Get(headerKey) != "h" || reply.Trailer.Get(trailerKey) != "t" {
			t.Errorf("%+v, bare %+v", reply, want)
		}
		if outside.status != http.StatusOK || x.Status() != http.StatusOK {
			t.Errorf("status %d outside, %d between", outside.status, x.Status())
		}
		if inside.bytes != outside.bytes || x.Sent().Bytes != inside.bytes || inside.bytes == 0 {
			t.Errorf("%d bytes inside, %d outside, %d between", inside.bytes, outside.bytes, x.Sent().Bytes)
		}
	})
}

// TestEngineAroundEngine: the inner one is not needed and does no harm, with and
// without somebody between.
func TestEngineAroundEngine(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, between := range []bool{false, true} {
			var outermost *streamwrap.Exchange
			config := behindEngine(conntest.Config{})
			if between {
				config = around(config, func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						next.ServeHTTP(&statusWriter{ResponseWriter: w}, r)
					})
				})
			}
			config = behindEngine(config, streamwrap.WithExchangeObserver(
				func(_ context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
					outermost = x
					return nil, nil
				}))
			var calls atomic.Pointer[streamwrap.Call]
			config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(capturing(&calls))}
			srv := c.Start(t, config)
			header := http.Header{conntest.CountHeader: {"15"}, trailerKey: {"t"}}
			reply := c.Clients(srv).Do(t.Context(), c.Kind, header, "one", "two")
			want := c.Clients(c.Start(t, conntest.Config{})).Do(t.Context(), c.Kind, header, "one", "two")
			if reply.Err != nil || fmt.Sprint(reply.Messages) != fmt.Sprint(want.Messages) || reply.Trailer.Get(trailerKey) != "t" {
				t.Errorf("%+v, bare %+v", reply, want)
			}
			srv.WaitCalls(1)
			inner, ok := calls.Load().Exchange()
			if !ok || inner.Sent() != outermost.Sent() || inner.Received() != outermost.Received() || inner.Sent().Bytes == 0 {
				t.Errorf("inner %+v %+v, outer %+v %+v", inner.Sent(), inner.Received(), outermost.Sent(), outermost.Received())
			}
			if (inner == outermost) == between {
				t.Errorf("the same exchange: %v", inner == outermost)
			}
		}
	})
}

// capturing returns an interceptor that remembers the last Call.
func capturing(last *atomic.Pointer[streamwrap.Call]) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
			last.Store(call)
			return nil, new(struct{}), nil
		},
	})
}
