package streamwrap_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

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
