package streamwrap_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// dullWriter is a ResponseWriter that can do nothing else.
type dullWriter struct{ header http.Header }

func (w *dullWriter) Header() http.Header         { return w.header }
func (w *dullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *dullWriter) WriteHeader(int)             {}

type dullFlusher struct{}

func (dullFlusher) Flush() {}

type dullHijacker struct{}

func (dullHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errLineCut }

// TestEngineWriterIsWhatTheServersIs: connect and others look at what a
// ResponseWriter can do.
func TestEngineWriterIsWhatTheServersIs(t *testing.T) {
	t.Parallel()
	dull := &dullWriter{make(http.Header)}
	for _, tt := range []struct {
		name          string
		w             http.ResponseWriter
		flush, hijack bool
	}{
		{"nothing", dull, false, false},
		{"flush", struct {
			*dullWriter
			dullFlusher
		}{dullWriter: dull}, true, false},
		{"flush and hijack", struct {
			*dullWriter
			dullFlusher
			dullHijacker
		}{dullWriter: dull}, true, true},
		{"hijack", struct {
			*dullWriter
			dullHijacker
		}{dullWriter: dull}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, flush := w.(http.Flusher)
				_, hijack := w.(http.Hijacker)
				if flush != tt.flush || hijack != tt.hijack {
					t.Errorf("Flusher %v, Hijacker %v, want %v and %v", flush, hijack, tt.flush, tt.hijack)
				}
				if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); !ok || u.Unwrap() != tt.w {
					t.Error("Unwrap does not return the server's ResponseWriter")
				}
				if h, ok := w.(http.Hijacker); ok {
					if _, _, err := h.Hijack(); !errors.Is(err, errLineCut) {
						t.Errorf("Hijack: %v", err)
					}
				}
			})
			serving(tt.w, conntest.Connect, handler)
		})
	}
}

// TestEngineLetsHandlersHijack: the connection is the handler's, during and after
// ServeHTTP.
func TestEngineLetsHandlersHijack(t *testing.T) {
	t.Parallel()
	for name, hijack := range map[string]func(http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error){
		"Hijacker": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) { return w.(http.Hijacker).Hijack() },
		"ResponseController": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			return http.NewResponseController(w).Hijack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				returned := make(chan struct{})
				config, dial := dialing(behindEngine(conntest.Config{
					Transport: conntest.H1,
					Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
						mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
							x, _ := streamwrap.ExchangeFromContext(r.Context())
							conn, rw, err := hijack(w)
							if err != nil {
								t.Error(err)
								return
							}
							if _, err := w.Write([]byte("lost")); !errors.Is(err, http.ErrHijacked) && err == nil {
								t.Errorf("Write after Hijack: %v", err)
							}
							go func() {
								defer conn.Close()
								<-returned
								if x.Interrupt(errLineCut) || x.Reset(errLineCut) {
									t.Error("the connection is not the server's any more")
								}
								line, _ := rw.ReadString('\n')
								_, _ = conn.Write([]byte("got " + line))
							}()
						})
					},
				}))
				config = around(config, func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer close(returned)
						next.ServeHTTP(w, r)
					})
				})
				conntest.Start(t, config)
				conn := dial(t)
				_, _ = io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: a\r\n\r\n")
				<-returned
				synctest.Wait()
				_, _ = io.WriteString(conn, "hello\n")
				if got, err := io.ReadAll(conn); string(got) != "got hello\n" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}

// TestEngineResponseControllerReachesTheServer: what the writer cannot do itself
// is found through it.
func TestEngineResponseControllerReachesTheServer(t *testing.T) {
	t.Parallel()
	for _, transport := range []conntest.Transport{conntest.H1, conntest.H2C} {
		for _, tt := range []struct {
			name     string
			handle   func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, r *http.Request)
			bodiless bool
			now      string // what the client gets while the handler runs
		}{
			{name: "SetReadDeadline", handle: func(t *testing.T, rc *http.ResponseController, _ http.ResponseWriter, r *http.Request) {
				if err := rc.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					t.Error(err)
				}
				within(t, time.Second, "Read", func() {
					if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Read: %v", err)
					}
				})
			}},
			{name: "SetWriteDeadline", handle: func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, _ *http.Request) {
				if err := rc.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
					t.Error(err)
				}
				within(t, time.Second, "Write", func() {
					for range 1000 { // nobody reads
						if _, err := w.Write(make([]byte, 1<<10)); err != nil {
							return
						}
					}
					t.Error("Write does not fail")
				})
			}, bodiless: true},
			{name: "EnableFullDuplex", handle: func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
				if err := rc.EnableFullDuplex(); err != nil {
					t.Error(err)
				}
				_, _ = w.Write([]byte("now"))
				// Without full duplex net/http waits here for the rest of the request.
				if err := rc.Flush(); err != nil {
					t.Error(err)
				}
				_, _ = r.Body.Read(make([]byte, 1))
			}, now: "now"},
			{name: "Flush", handle: func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte("now"))
				if err := rc.Flush(); err != nil {
					t.Error(err)
				}
				<-r.Context().Done()
			}, bodiless: true, now: "now"},
		} {
			t.Run(transport.String()+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					srv := conntest.Start(t, behindEngine(conntest.Config{
						Transport: transport,
						Window:    4 << 10,
						Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
							mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
								tt.handle(t, http.NewResponseController(w), w, r)
							})
						},
					}))
					pipe, end := io.Pipe()
					defer end.CloseWithError(errLineCut)
					body := io.Reader(pipe)
					if tt.bodiless {
						body = http.NoBody
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/x", body)
					if err != nil {
						t.Fatal(err)
					}
					res, err := srv.Client().Do(req)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					got := make([]byte, len(tt.now))
					if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != tt.now {
						t.Errorf("%q, %v", got, err)
					}
					if tt.now == "" {
						time.Sleep(time.Minute) // the client does not read
					}
				})
			})
		}
	}
}

// unflushable hides all but the ResponseWriter.
func unflushable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})
}

// TestEngineWithoutFlusher: connect refuses streams if it cannot flush, and the
// Engine must not make it believe that it can.
func TestEngineWithoutFlusher(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		bare := c.Start(t, conntest.Config{Wrap: unflushable})
		ours := c.Start(t, around(behindEngine(conntest.Config{}), unflushable))
		want := c.Clients(bare).Do(t.Context(), c.Kind, nil, "one")
		got := c.Clients(ours).Do(t.Context(), c.Kind, nil, "one")
		text := func(r conntest.Reply) string {
			return strings.ReplaceAll(fmt.Sprintf("%q %v", r.Messages, r.Err), "*streamwrap.responseWriter", "struct { http.ResponseWriter }")
		}
		if text(got) != text(want) {
			t.Errorf("%s, bare %s", text(got), text(want))
		}
		if refused := c.Kind&connect.StreamTypeServer != 0; refused && !strings.Contains(text(got), "does not implement http.Flusher") {
			t.Error(got.Err)
		}
	})
}

// TestEngineSendsHeadersAtOnce: Send(nil) means that the headers leave now, with
// no byte of a body, and again it means nothing.
func TestEngineSendsHeadersAtOnce(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		release := make(chan struct{})
		var x *streamwrap.Exchange
		srv := c.Start(t, behindEngine(conntest.Config{Service: conntest.Service{
			Server: func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				x, _ = streamwrap.ExchangeFromContext(ctx)
				stream.ResponseHeader().Set("Early", "yes")
				for range 3 {
					if err := stream.Send(nil); err != nil {
						t.Error(err)
					}
				}
				<-release
				return stream.Send(conntest.Text("late"))
			},
		}}))
		start := time.Now()
		stream, err := c.Clients(srv).Server.CallServerStream(t.Context(), connect.NewRequest(conntest.Text("")))
		if err != nil {
			t.Fatal(err)
		}
		promptly(t, "the headers", start)
		if got := stream.ResponseHeader().Get("Early"); got != "yes" {
			t.Errorf("header %q", got)
		}
		if status, sent := x.Status(), x.Sent().Bytes; status != http.StatusOK || sent != 0 {
			t.Errorf("status %d, %d bytes sent", status, sent)
		}
		close(release)
		if !stream.Receive() || string(stream.Msg().GetValue()) != "late" || stream.Receive() || stream.Err() != nil {
			t.Errorf("then %v", stream.Err())
		}
	})
}

// TestEngineInformationalResponses: 1xx responses come before the headers and
// are none.
func TestEngineInformationalResponses(t *testing.T) {
	t.Parallel()
	hints := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x, ok := streamwrap.ExchangeFromContext(r.Context())
			for i := range 2 {
				w.Header().Set("Link", strconv.Itoa(i))
				w.WriteHeader(http.StatusEarlyHints)
			}
			if ok && x.Status() != 0 {
				t.Errorf("status %d after a 103", x.Status())
			}
			if ok && !x.SetResponseHeader("Still", "open") {
				t.Error("too late for headers after a 103")
			}
			next.ServeHTTP(w, r)
		})
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		do := func(config conntest.Config) (hints []string, reply conntest.Reply) {
			srv := c.Start(t, config)
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
					hints = append(hints, fmt.Sprint(code, header["Link"], header["Still"]))
					return nil
				},
			})
			return hints, c.Clients(srv).Do(ctx, c.Kind, nil, "one")
		}
		want, bare := do(conntest.Config{Wrap: hints})
		got, reply := do(behindEngine(conntest.Config{Wrap: hints}))
		if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != 2 {
			t.Errorf("informational responses %v, bare %v", got, want)
		}
		if reply.Err != nil || bare.Err != nil || reply.Header.Get("Still") != "open" || reply.Header.Get("Link") != bare.Header.Get("Link") {
			t.Errorf("%v, header %v, bare %v", reply.Err, reply.Header, bare.Header)
		}
	})
}

// otherRequests are handlers that have nothing to do with RPCs.
func otherRequests(mux *http.ServeMux) {
	mux.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
		}
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "file.txt", time.Unix(1e9, 0), strings.NewReader(strings.Repeat("content ", 5000)))
	})
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			_, _ = io.WriteString(w, strings.Repeat("large", 100))
		}
	})
	mux.Handle("/old", http.RedirectHandler("/new", http.StatusMovedPermanently))
	mux.HandleFunc("/nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/twice", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.Header().Set("Late", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "twice")
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Declared")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Declared", "1")
		w.Header().Set(http.TrailerPrefix+"Undeclared", "2")
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %v", body, err, r.Trailer)
	})
	mux.HandleFunc("/unread", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "short")
	})
	mux.HandleFunc("/json", func(w http.ResponseWriter, _ *http.Request) { // looks like unary Connect
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})
	mux.HandleFunc("/framed", func(w http.ResponseWriter, _ *http.Request) { // looks like frames and is none
		w.Header().Set("Content-Type", "application/grpc")
		for range 3 {
			_, _ = io.WriteString(w, "\x02\x00\x00\x00\x00not frames")
		}
	})
	const get = "/conntest.v1.Other/Get"
	mux.Handle(get, connect.NewUnaryHandler(get, func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
		return connect.NewResponse(req.Msg), nil
	}, connect.WithIdempotency(connect.IdempotencyNoSideEffects)))
	mux.HandleFunc("/abort", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "never")
		panic(http.ErrAbortHandler)
	})
}

// otherConfig serves otherRequests.
func otherConfig() conntest.Config {
	return conntest.Config{
		Register:   func(mux *http.ServeMux, _ ...connect.HandlerOption) { otherRequests(mux) },
		TuneServer: quietly,
	}
}

// TestEngineLeavesOtherRequestsAlone: byte for byte on HTTP/1, and in everything
// a client gets on HTTP/2.
func TestEngineLeavesOtherRequestsAlone(t *testing.T) {
	t.Parallel()
	const ending = "Connection: close\n\n"
	for _, request := range []string{
		"GET /events HTTP/1.1\nHost: a\n" + ending,
		"GET /file HTTP/1.1\nHost: a\n" + ending,
		"GET /file HTTP/1.1\nHost: a\nRange: bytes=100-200\n" + ending,
		"GET /file HTTP/1.1\nHost: a\nIf-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\n" + ending,
		"HEAD /file HTTP/1.1\nHost: a\n" + ending,
		"HEAD /small HTTP/1.1\nHost: a\n" + ending,
		"HEAD /large HTTP/1.1\nHost: a\n" + ending,
		"GET /empty HTTP/1.1\nHost: a\n" + ending,
		"GET /small HTTP/1.1\nHost: a\n" + ending,
		"GET /large HTTP/1.1\nHost: a\n" + ending,
		"GET /old HTTP/1.1\nHost: a\n" + ending,
		"GET /nothing HTTP/1.1\nHost: a\n" + ending,
		"GET /twice HTTP/1.1\nHost: a\n" + ending,
		"GET /trailers HTTP/1.1\nHost: a\nTE: trailers\n" + ending,
		"GET /json HTTP/1.1\nHost: a\n" + ending,
		"GET /framed HTTP/1.1\nHost: a\n" + ending,
		"GET /short HTTP/1.1\nHost: a\n" + ending,
		"GET /abort HTTP/1.1\nHost: a\n" + ending,
		"GET /missing HTTP/1.1\nHost: a\n" + ending,
		"POST /echo HTTP/1.1\nHost: a\nContent-Length: 5\n" + ending + "hello",
		"POST /echo HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTrailer: After\n" + ending + "5\nhello\n0\nAfter: all\n\n",
		"POST /unread HTTP/1.1\nHost: a\nContent-Length: 5\n" + ending + "hello",
		"GET /conntest.v1.Other/Get?connect=v1&encoding=json&message=%22aGk%3D%22 HTTP/1.1\nHost: a\n" + ending,
		"GET /conntest.v1.Other/Get?connect=v1&encoding=json&message=%22aGk HTTP/1.1\nHost: a\n" + ending,
		// What connect answers by itself.
		"GET " + conntest.UnaryProcedure + " HTTP/1.1\nHost: a\n" + ending,
		"OPTIONS " + conntest.UnaryProcedure + " HTTP/1.1\nHost: a\n" + ending,
		"POST " + conntest.UnaryProcedure + " HTTP/1.1\nHost: a\nContent-Type: text/plain\nContent-Length: 1\n" + ending + "a",
		"POST " + conntest.BidiProcedure + " HTTP/1.1\nHost: a\nContent-Type: application/connect+proto\nContent-Length: 0\n" + ending,
		// Two on one connection, and HTTP/1.0 with and without keep-alive.
		"GET /small HTTP/1.1\nHost: a\n\nGET /large HTTP/1.1\nHost: a\n\nPOST /echo HTTP/1.1\nHost: a\nContent-Length: 2\n" + ending + "hi",
		"POST /unread HTTP/1.1\nHost: a\nContent-Length: 5\n\nhelloGET /small HTTP/1.1\nHost: a\n" + ending,
		"GET /small HTTP/1.0\n\n",
		"GET /large HTTP/1.0\n\n",
		"GET /file HTTP/1.0\nConnection: keep-alive\n\nGET /small HTTP/1.0\n\n",
		"GET /events HTTP/1.0\n\n",
		"GET /large HTTP/1.0\nConnection: keep-alive\n\n",
	} {
		line, _, _ := strings.Cut(request, "\n")
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			answer := func(config conntest.Config) (h1, h2 string) {
				synctest.Test(t, func(t *testing.T) { h1 = rawHTTP(t, config, request) })
				synctest.Test(t, func(t *testing.T) {
					config.Transport = conntest.H2C
					srv := conntest.Start(t, config)
					r, err := http.ReadRequest(newReader(strings.ReplaceAll(request, "\n", "\r\n")))
					if err != nil {
						t.Fatal(err)
					}
					r.URL.Scheme, r.URL.Host, r.RequestURI, r.Close = "http", strings.TrimPrefix(srv.URL, "http://"), "", false
					r.Header.Del("Connection")
					h2 = describe(srv.Client().Transport.RoundTrip(r.WithContext(t.Context())))
				})
				return h1, h2
			}
			want1, want2 := answer(otherConfig())
			got1, got2 := answer(behindEngine(otherConfig()))
			if got1 != want1 {
				t.Errorf("HTTP/1:\n%s\nbare:\n%s", got1, want1)
			}
			if got2 != want2 {
				t.Errorf("HTTP/2:\n%s\nbare:\n%s", got2, want2)
			}
		})
	}
}

// TestEngineServesHTTP10: RPCs too, with and without keep-alive. There are no
// chunks, so that all bytes are the same.
func TestEngineServesHTTP10(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ procedure, contentType, body string }{
		{conntest.UnaryProcedure, "application/proto", textPayload("hi")},
		{conntest.UnaryProcedure, "application/grpc", envelope(textPayload("hi"))},
		{conntest.UnaryProcedure, "application/grpc-web", envelope(textPayload("hi"))},
		{conntest.ClientProcedure, "application/connect+proto", envelope(textPayload("hi")) + envelope(textPayload("there"))},
		{conntest.ServerProcedure, "application/connect+proto", envelope(textPayload("hi"))},
		{conntest.ServerProcedure, "application/grpc", envelope(textPayload("hi"))},
		{conntest.ServerProcedure, "application/grpc-web+proto", envelope(textPayload("hi"))},
		{conntest.BidiProcedure, "application/connect+proto", envelope(textPayload("hi"))},
	} {
		t.Run(tt.procedure+"/"+tt.contentType, func(t *testing.T) {
			t.Parallel()
			for _, fault := range []string{"", "Conntest-Fault: do=fail&code=9&after=0&delay=0s&message=no\n"} {
				var requests strings.Builder
				for _, connection := range []string{"Connection: keep-alive\n", ""} {
					fmt.Fprintf(&requests, "POST %s HTTP/1.0\nContent-Type: %s\n%s%sContent-Length: %d\n\n%s",
						tt.procedure, tt.contentType, fault, connection, len(tt.body), tt.body)
				}
				answer := func(config conntest.Config) (answer string) {
					synctest.Test(t, func(t *testing.T) { answer = rawHTTP(t, config, requests.String()) })
					return answer
				}
				if got, want := answer(behindEngine(conntest.Config{})), answer(conntest.Config{}); got != want {
					t.Errorf("%q\nbare:\n%q", got, want)
				}
			}
		})
	}
}

// TestEngineLeavesEventsAlone: events that a handler flushes arrive when it
// does.
func TestEngineLeavesEventsAlone(t *testing.T) {
	t.Parallel()
	for _, transport := range web {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := behindEngine(otherConfig())
				config.Transport = transport
				srv := conntest.Start(t, config)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/events", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				res, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				for i := range 3 {
					event := make([]byte, len("data: 0\n\n"))
					if _, err := io.ReadFull(res.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
						t.Errorf("event %d: %q, %v", i, event, err)
					}
					if at := time.Since(start); at != time.Duration(i)*time.Second {
						t.Errorf("event %d came after %v", i, at)
					}
				}
			})
		})
	}
}

// TestEngineKeepsResponsesOfUnaryRPCs: the headers are the same to the byte, and
// what has a length keeps it.
func TestEngineKeepsResponsesOfUnaryRPCs(t *testing.T) {
	t.Parallel()
	types := map[string]func(string) string{
		"application/proto":          textPayload,
		"application/json":           func(s string) string { return `"` + s + `"` },
		"application/grpc":           func(s string) string { return envelope(textPayload(s)) },
		"application/grpc-web+proto": func(s string) string { return envelope(textPayload(s)) },
	}
	headers := map[string]string{
		"success":  "",
		"metadata": conntest.HeaderPrefix + "A: 1\n" + conntest.TrailerPrefix + "B: 2\n",
		"gzip":     "Accept-Encoding: gzip\nGrpc-Accept-Encoding: gzip\n",
		"failure":  "Conntest-Fault: do=fail&code=9&after=0&delay=0s&message=no\n",
		"panic":    "Conntest-Fault: do=panic&code=9&after=0&delay=0s&message=no\n",
		"timeout":  "Connect-Timeout-Ms: 1\nGrpc-Timeout: 1m\nConntest-Fault: do=block&code=9&after=0&delay=0s&message=no\n",
		"unknown":  "Content-Encoding: lzw\nGrpc-Encoding: lzw\n",
	}
	// Lengths are known up to net/http's buffers, of 2 and of 4 KiB.
	sizes := []int{0, 1, 2000, 2036, 2037, 2038, 2039, 2040, 2041, 2042, 2043, 2044, 2045, 2046, 2048, 4000, 4080, 4100, 100_000}
	for contentType, encode := range types {
		for name, header := range headers {
			t.Run(contentType+"/"+name, func(t *testing.T) {
				t.Parallel()
				for _, size := range sizes {
					body := encode(strings.Repeat("x", size)[:size/4*4]) // whole groups for JSON's base64
					request := fmt.Sprintf("POST %s HTTP/1.1\nHost: a\nContent-Type: %s\n%sContent-Length: %d\nConnection: close\n\n",
						conntest.UnaryProcedure, contentType, header, len(body))
					answer := func(config conntest.Config) (h1, h2 string) {
						config.TuneServer = quietly
						synctest.Test(t, func(t *testing.T) {
							h1 = rawHTTP(t, config, request+body)
							if h1 != "" {
								h1 = dechunked(t, h1)
							}
						})
						synctest.Test(t, func(t *testing.T) {
							config.Transport = conntest.H2C
							srv := conntest.Start(t, config)
							r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.UnaryProcedure, strings.NewReader(body))
							if err != nil {
								t.Fatal(err)
							}
							r.Header = requestHeader(t, request)
							h2 = describe(srv.Client().Transport.RoundTrip(r))
						})
						return h1, h2
					}
					want1, want2 := answer(conntest.Config{})
					got1, got2 := answer(behindEngine(conntest.Config{}))
					if got1 != want1 {
						t.Fatalf("%d bytes, HTTP/1:\n%s\nbare:\n%s", size, got1, want1)
					}
					if got2 != want2 {
						t.Fatalf("%d bytes, HTTP/2:\n%s\nbare:\n%s", size, got2, want2)
					}
				}
			})
		}
	}
}

// requestHeader returns the headers of a request, but for those of HTTP/1.
func requestHeader(t *testing.T, request string) http.Header {
	t.Helper()
	r, err := http.ReadRequest(newReader(strings.ReplaceAll(request, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Del("Connection")
	return r.Header
}

// TestEngineWritesUnaryResponsesAtOnce: what a handler writes in one piece stays
// one, what it writes in two becomes one, and nothing is flushed before
// ServeHTTP returns.
func TestEngineWritesUnaryResponsesAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ contentType, body string }{
		{"application/proto", textPayload("hello")},
		{"application/json", `"aGVsbG8="`},
		{"application/grpc", envelope(textPayload("hello"))},
	} {
		t.Run(tt.contentType, func(t *testing.T) {
			t.Parallel()
			w := newRecorder(t)
			r := streamRequest(conntest.Connect, conntest.UnaryProcedure, strings.NewReader(tt.body))
			r.Header.Set("Content-Type", tt.contentType)
			handler := connect.NewUnaryHandler(conntest.UnaryProcedure,
				func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return connect.NewResponse(req.Msg), nil
				})
			streamwrap.NewEngine().Handler(handler).ServeHTTP(w, r)
			want := fmt.Sprintf("header 200, write %d", len(tt.body))
			if got := w.Events(); !strings.HasPrefix(got, want) || strings.Count(got, "write") != 1 {
				t.Errorf("%s, want %s", got, want)
			}
			if w.Body() != tt.body {
				t.Errorf("body %q, want %q", w.Body(), tt.body)
			}
		})
	}
}

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

// TestEngineRequestPattern: middleware outside reads what the mux inside found.
func TestEngineRequestPattern(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, want string }{
		{"/things/7", "GET /things/{id}"},
		{"/panic", "/panic"},
		{"/missing", ""},
	} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /things/{id}", func(_ http.ResponseWriter, r *http.Request) {
				if r.PathValue("id") != "7" {
					t.Errorf("id %q", r.PathValue("id"))
				}
			})
			mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(errLineCut) })
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() { _ = recover() }()
				streamwrap.NewEngine().Handler(mux).ServeHTTP(newRecorder(t), r)
			}()
			if r.Pattern != tt.want {
				t.Errorf("pattern %q, want %q", r.Pattern, tt.want)
			}
		})
	}
}

// TestEngineHandsFormsBack: net/http removes the temporary files of a form, if
// its own request has the form.
func TestEngineHandsFormsBack(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"return", "panic"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			if err := form.WriteField("a", "b"); err != nil {
				t.Fatal(err)
			}
			_ = form.Close()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/upload", &body)
			r.Header.Set("Content-Type", form.FormDataContentType())
			func() {
				defer func() { _ = recover() }()
				streamwrap.NewEngine().Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if err := r.ParseMultipartForm(1 << 20); err != nil {
						t.Error(err)
					}
					if end == "panic" {
						panic(errLineCut)
					}
				})).ServeHTTP(newRecorder(t), r)
			}()
			if r.MultipartForm == nil || r.Form.Get("a") != "b" || r.PostForm.Get("a") != "b" {
				t.Errorf("form %v, %v, %v", r.MultipartForm, r.Form, r.PostForm)
			}
		})
	}
}

// TestEngineDoesNotContinue: a client that waits for 100 Continue gets it when
// the handler reads, and not if it never does.
func TestEngineDoesNotContinue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		reads bool
	}{{"unread", false}, {"read", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, contentType := range []string{"text/plain", "application/grpc+proto", "application/connect+proto", "application/proto"} {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					config, dial := dialing(behindEngine(conntest.Config{
						Transport: conntest.H1,
						Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
							mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
								<-release
								if tt.reads {
									_, _ = io.ReadAll(r.Body)
								}
								w.WriteHeader(http.StatusForbidden)
							})
						},
					}))
					conntest.Start(t, config)
					conn := dial(t)
					_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nContent-Type: "+contentType+"\r\n\r\n")
					lines := make(chan string, 10)
					go func() {
						defer close(lines)
						for r := bufio.NewReader(conn); ; {
							line, err := r.ReadString('\n')
							if err != nil {
								return
							}
							lines <- strings.TrimSpace(line)
						}
					}()
					synctest.Wait()
					select {
					case line := <-lines:
						t.Fatalf("%q before the handler did anything", line)
					default:
					}
					close(release)
					want := "HTTP/1.1 403 Forbidden"
					if tt.reads {
						want = "HTTP/1.1 100 Continue"
					}
					if line := <-lines; line != want {
						t.Errorf("%q, want %q", line, want)
					}
					_, _ = io.WriteString(conn, "hello")
					time.Sleep(time.Second) // what else is sent
					_ = conn.Close()
					for range lines {
					}
				})
			}
		})
	}
}
