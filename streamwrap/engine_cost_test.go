package streamwrap_test

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// unaryOnGoroutines serves a unary RPC again and again, each on a goroutine of
// its own as HTTP/2 does.
func unaryOnGoroutines(wrap func(http.Handler) http.Handler) (serve func()) {
	handler := wrap(connect.NewUnaryHandler(conntest.UnaryProcedure,
		func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(req.Msg), nil
		}))
	payload := textPayload("sixteen bytes, 1")
	source := bytes.NewReader(nil)
	body := io.NopCloser(source)
	header := http.Header{"Content-Type": {"application/proto"}}
	done := make(chan struct{})
	return func() {
		source.Reset([]byte(payload))
		r := streamRequest(conntest.Connect, conntest.UnaryProcedure, body)
		r.Header = header
		w := discarder{make(http.Header)}
		go func() {
			handler.ServeHTTP(w, r)
			done <- struct{}{}
		}()
		<-done
	}
}

// discarder is a ResponseWriter that costs nothing.
type discarder struct{ header http.Header }

func (d discarder) Header() http.Header       { return d.header }
func (discarder) WriteHeader(int)             {}
func (discarder) Write(p []byte) (int, error) { return len(p), nil }
func (discarder) Flush()                      {}

// TestEngineUnaryAllocations: the exchange, and the request that has its context.
func TestEngineUnaryAllocations(t *testing.T) {
	bare := fewestAllocations(unaryOnGoroutines(bareHandler))
	ours := fewestAllocations(unaryOnGoroutines(streamwrap.NewEngine().Handler))
	if ours > bare+2 {
		t.Errorf("%v allocations, without the Engine %v", ours, bare)
	}
}

// fewestAllocations returns what f allocates when pools have what it asks for: with
// -race they drop some, and goroutines of earlier tests may still allocate.
func fewestAllocations(f func()) float64 {
	fewest := math.Inf(1)
	for range 300 {
		fewest = min(fewest, testing.AllocsPerRun(1, f))
	}
	return fewest
}

// TestEngineClientUnaryAllocations: requests of which nobody can ask are none of
// its business.
func TestEngineClientUnaryAllocations(t *testing.T) {
	answer := clientFunc(func(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed })
	client := streamwrap.NewEngine().HTTPClient(answer)
	r := streamRequest(conntest.Connect, conntest.UnaryProcedure, http.NoBody)
	r.Header.Set("Content-Type", "application/proto")
	r.ContentLength = 0
	if n := testing.AllocsPerRun(200, func() { _, _ = client.Do(r) }); n != 0 { //nolint:bodyclose // the client of this test returns no response
		t.Errorf("%v allocations", n)
	}
}

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func BenchmarkEngineUnary(b *testing.B) {
	for _, tt := range []struct {
		name string
		wrap func(http.Handler) http.Handler
	}{{"bare", bareHandler}, {"engine", streamwrap.NewEngine().Handler}} {
		b.Run(tt.name, func(b *testing.B) {
			serve := unaryOnGoroutines(tt.wrap)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}
