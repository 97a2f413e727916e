package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// frameLog notes the frames of HTTP/2 that clients receive, each as its type and,
// if it ends its stream, a dollar sign.
type frameLog struct {
	mu     sync.Mutex
	frames []string
}

// tune makes an HTTP client note what it receives.
func (l *frameLog) tune(transport *http.Transport) {
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &frameConn{Conn: conn, log: l}, err
	}
}

// responses returns the frames of streams: headers and data.
func (l *frameLog) responses() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.frames, " ")
}

type frameConn struct {
	net.Conn

	log     *frameLog
	pending []byte
}

func (c *frameConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.pending = append(c.pending, p[:n]...)
	for len(c.pending) >= 9 {
		size := int(c.pending[0])<<16 | int(c.pending[1])<<8 | int(c.pending[2])
		if len(c.pending) < 9+size {
			break
		}
		kind, ends := c.pending[3], c.pending[4]&1 != 0
		if name := map[byte]string{0: "data", 1: "headers"}[kind]; name != "" {
			if ends {
				name += "$"
			}
			c.log.frames = append(c.log.frames, name)
		}
		c.pending = c.pending[9+size:]
	}
	return n, err
}

// trailersOnlyPlaces are where TrailersOnly may stand.
var trailersOnlyPlaces = map[string]func(http.Handler) http.Handler{
	"alone":          retry.TrailersOnly,
	"inside":         func(next http.Handler) http.Handler { return streamwrap.NewEngine().Handler(retry.TrailersOnly(next)) },
	"outside":        func(next http.Handler) http.Handler { return retry.TrailersOnly(streamwrap.NewEngine().Handler(next)) },
	"nested in both": func(next http.Handler) http.Handler { return retry.TrailersOnly(retry.TrailersOnly(next)) },
}

// TestTrailersOnlyFrames: a refusal is one frame, and what has begun is as ever.
func TestTrailersOnlyFrames(t *testing.T) {
	t.Parallel()
	refusal := func() *connect.Error {
		err := connect.NewError(connect.CodeUnavailable, errNotNow)
		err.Meta().Set("Meta", "data")
		return err
	}
	cases := map[string]struct {
		server func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error
		frames string // of a gRPC response
		code   connect.Code
	}{
		"refusal": {func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
			return connect.NewError(connect.CodeUnavailable, errNotNow)
		}, "headers$", connect.CodeUnavailable},
		"refusal with metadata": {func(_ context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			s.ResponseHeader().Set("Header", "header")
			s.ResponseTrailer().Set("Own", "trailer")
			return retry.Pushback(refusal(), time.Second)
		}, "headers$", connect.CodeUnavailable},
		"flush first": {func(_ context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if err := s.Send(nil); err != nil {
				return err
			}
			return refusal()
		}, "headers headers$", connect.CodeUnavailable},
		"message first": {func(_ context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if err := s.Send(conntest.Text("one")); err != nil {
				return err
			}
			return refusal()
		}, "headers data headers$", connect.CodeUnavailable},
		"success": {func(_ context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			return s.Send(conntest.Text("one"))
		}, "headers data headers$", 0},
	}
	for name, test := range cases {
		for place, wrap := range trailersOnlyPlaces {
			t.Run(name+"/"+place, func(t *testing.T) {
				t.Parallel()
				downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
					var log frameLog
					config := conntest.Config{Service: conntest.Service{Server: test.server}, Wrap: wrap}
					if c.Transport.HTTP2() {
						config.TuneClient = log.tune
					}
					srv := c.Start(t, config)
					stream, err := c.Clients(srv).Server.CallServerStream(t.Context(), connect.NewRequest(conntest.Text("text")))
					if err != nil {
						t.Fatal(err)
					}
					for stream.Receive() {
					}
					err = stream.Err()
					if test.code == 0 && err != nil || test.code != 0 && connect.CodeOf(err) != test.code {
						t.Errorf("error %v, want %v", err, test.code)
					}
					if test.code != 0 && !connect.IsWireError(err) {
						t.Errorf("%v is not the server's", err)
					}
					meta := metaOf(err)
					if test.code != 0 && name != "refusal" && meta.Get("Meta") != "data" {
						t.Errorf("metadata %v", meta)
					}
					if name == "refusal with metadata" && c.Protocol == conntest.GRPC {
						got := fmt.Sprint(stream.ResponseHeader().Get("Header"), stream.ResponseTrailer().Get("Own"), meta.Get("Own"))
						if !strings.Contains(got, "header") || !strings.Contains(got, "trailer") {
							t.Errorf("headers and trailers %q", got)
						}
					}
					if err := stream.Close(); err != nil {
						t.Error(err)
					}
					if c.Protocol == conntest.GRPC && c.Transport.HTTP2() {
						if got := log.responses(); got != test.frames {
							t.Errorf("frames %q, want %q", got, test.frames)
						}
					}
				})
			})
		}
	}
}

// TestTrailersOnlyLeavesOthersAlone: what is not gRPC over HTTP/2 gets the same bytes
// as without.
func TestTrailersOnlyLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		if c.Protocol == conntest.GRPC && c.Transport.HTTP2() {
			return
		}
		var frames [2]string
		var errs [2]string
		for i, wrap := range []func(http.Handler) http.Handler{nil, retry.TrailersOnly} {
			var log frameLog
			config := conntest.Config{Wrap: wrap}
			if c.Transport.HTTP2() {
				config.TuneClient = log.tune
			}
			srv := c.Start(t, config)
			reply := c.Clients(srv).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Fail(connect.CodeUnavailable, "boom")), "one")
			frames[i], errs[i] = log.responses(), fmt.Sprint(reply.Err, reply.Messages)
		}
		if frames[0] != frames[1] || errs[0] != errs[1] {
			t.Errorf("frames %q, errors %q", frames, errs)
		}
	})
}

// TestTrailersOnlyKinds: connect's own clients get the same from each kind of RPC,
// with and without messages.
func TestTrailersOnlyKinds(t *testing.T) {
	t.Parallel()
	faults := map[string]http.Header{
		"none":    {},
		"refused": conntest.WithFaults(conntest.Fail(connect.CodeUnavailable, "boom")),
		"middle":  conntest.WithFaults(conntest.Fail(connect.CodeUnavailable, "boom").After(1)),
		"panic":   conntest.WithFaults(conntest.Panic("boom")),
		"early":   conntest.WithFaults(conntest.ReturnEarly()),
	}
	for name, header := range faults {
		for place, wrap := range trailersOnlyPlaces {
			t.Run(name+"/"+place, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.GRPC}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					quiet := func(s *http.Server) { s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) }
					var replies [2]string
					for i, config := range []conntest.Config{{TuneServer: quiet}, {TuneServer: quiet, Wrap: wrap}} {
						h := header.Clone()
						h.Set(conntest.HeaderPrefix+"Own-Header", "header")
						h.Set(conntest.TrailerPrefix+"Own-Trailer", "trailer")
						reply := c.Clients(c.Start(t, config)).Do(t.Context(), c.Kind, h, "one", "two")
						trailer := reply.Trailer.Get("Own-Trailer")
						trailer += metaOf(reply.Err).Get("Own-Trailer")
						replies[i] = fmt.Sprint(reply.Messages, reply.Err, trailer)
					}
					if replies[0] != replies[1] {
						t.Errorf("without %q, with %q", replies[0], replies[1])
					}
				})
			})
		}
	}
}

// TestTrailersOnlyKeepsTheWriter: what a ResponseWriter can do stays possible.
func TestTrailersOnlyKeepsTheWriter(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.GRPC}, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var flushed, deadline error
		srv := c.Start(t, conntest.Config{Wrap: func(http.Handler) http.Handler {
			return retry.TrailersOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if _, ok := w.(http.Flusher); !ok {
					t.Error("the writer is no Flusher")
				}
				control := http.NewResponseController(w)
				deadline = control.SetReadDeadline(time.Now().Add(time.Hour))
				w.WriteHeader(http.StatusEarlyHints)
				w.WriteHeader(http.StatusTeapot)
				w.WriteHeader(http.StatusOK) // superfluous, as ever
				flushed = control.Flush()
				_, _ = io.WriteString(w, "body")
			}))
		}})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc+proto")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != "body" || res.StatusCode != http.StatusTeapot || flushed != nil || deadline != nil {
			t.Errorf("status %d, body %q, errors %v, %v, %v", res.StatusCode, body, err, flushed, deadline)
		}
	})
}

// metaOf returns the metadata of an error.
func metaOf(err error) http.Header {
	if coded := (*connect.Error)(nil); errors.As(err, &coded) {
		return coded.Meta()
	}
	return make(http.Header)
}

// TestTrailersOnlyLeavesHTTP1Alone: gRPC over HTTP/1.1 has its trailers where it has
// them without.
func TestTrailersOnlyLeavesHTTP1Alone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{Transport: conntest.H1, Wrap: retry.TrailersOnly})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "boom"))
		body := strings.NewReader("\x00\x00\x00\x00\x00")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.UnaryProcedure, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc+proto")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		if res.Trailer.Get("Grpc-Status") != "14" || res.Header.Get("Grpc-Status") != "" {
			t.Errorf("headers %v, trailers %v", res.Header, res.Trailer)
		}
	})
}
