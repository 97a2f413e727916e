package streamwrap_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
