package streamwrap_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// behindEngine puts an Engine around everything that the server serves.
func behindEngine(config conntest.Config, opts ...streamwrap.EngineOption) conntest.Config {
	engine, wrap := streamwrap.NewEngine(opts...), config.Wrap
	config.Wrap = func(next http.Handler) http.Handler {
		if wrap != nil {
			next = wrap(next)
		}
		return engine.Handler(next)
	}
	return config
}

// around adds middleware outside of what the config has.
func around(config conntest.Config, middleware func(http.Handler) http.Handler) conntest.Config {
	wrap := config.Wrap
	config.Wrap = func(next http.Handler) http.Handler {
		if wrap != nil {
			next = wrap(next)
		}
		return middleware(next)
	}
	return config
}

// withoutGzip makes servers send what the test wrote.
func withoutGzip() connect.ClientOption { return connect.WithAcceptCompression("gzip", nil, nil) }

// dialing returns a config whose server can be dialed without an HTTP client.
func dialing(config conntest.Config) (conntest.Config, func(*testing.T) net.Conn) {
	var dial func(ctx context.Context, network, addr string) (net.Conn, error)
	config.TuneClient = func(transport *http.Transport) { dial = transport.DialContext }
	return config, func(t *testing.T) net.Conn {
		t.Helper()
		conn, err := dial(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

var date = regexp.MustCompile(`Date: [^\r]*\r\n`)

// rawHTTP returns what an HTTP/1 server answers to bytes, until it closes the
// connection.
func rawHTTP(t *testing.T, config conntest.Config, request string) string {
	t.Helper()
	config.Transport = conntest.H1
	config, dial := dialing(config)
	conntest.Start(t, config)
	conn := dial(t)
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return date.ReplaceAllString(string(answer), "")
}

// dechunked returns an answer without the borders of its chunks.
func dechunked(t *testing.T, answer string) string {
	t.Helper()
	head, _, _ := strings.Cut(answer, "\r\n\r\n")
	res, err := http.ReadResponse(newReader(answer), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s\n\n%q\ntrailer %v", head, body, res.Trailer)
}

// describe returns everything that a client gets of a response.
func describe(res *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	header := func(h http.Header) string {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(h)) {
			if name != "Date" {
				fmt.Fprintf(&b, "\n%s: %q", name, h[name])
			}
		}
		return b.String()
	}
	return fmt.Sprintf("%s %s, length %d%s\n\n%q %v\n%s",
		res.Proto, res.Status, res.ContentLength, header(res.Header), body, err, header(res.Trailer))
}

// protocolType returns the content type of a request that streams.
func protocolType(p conntest.Protocol) string {
	switch p {
	case conntest.GRPC:
		return "application/grpc+proto"
	case conntest.GRPCWeb:
		return "application/grpc-web+proto"
	default:
		return "application/connect+proto"
	}
}

// envelope returns a message as it travels.
func envelope(payload string) string {
	var b bytes.Buffer
	_ = b.WriteByte(0)
	_ = binary.Write(&b, binary.BigEndian, uint32(len(payload)))
	b.WriteString(payload)
	return b.String()
}

// textPayload returns the encoding of conntest.Text.
func textPayload(s string) string {
	b := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(s)))
	return string(b) + s
}

// streamRequest returns a request as a server gets it.
func streamRequest(p conntest.Protocol, procedure string, body io.Reader) *http.Request {
	r := httptest.NewRequest(http.MethodPost, procedure, body)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.Header.Set("Content-Type", protocolType(p))
	return r
}

// serverStream returns a handler of a server stream, for requests without a
// server.
func serverStream(f func(ctx context.Context, stream *connect.ServerStream[conntest.Message]) error) http.Handler {
	return connect.NewServerStreamHandler(conntest.ServerProcedure,
		func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			return f(ctx, stream)
		})
}

// serving makes a handler serve one stream of a server without net/http, whose
// request has one message.
func serving(w http.ResponseWriter, p conntest.Protocol, handler http.Handler, opts ...streamwrap.EngineOption) {
	r := streamRequest(p, conntest.ServerProcedure, strings.NewReader(envelope(textPayload("go"))))
	streamwrap.NewEngine(opts...).Handler(handler).ServeHTTP(w, r)
}

// recorder is a ResponseWriter that records what is done to it, and lets a test
// hold that up. Use after the end of ServeHTTP fails the test.
type recorder struct {
	tb      testing.TB
	onWrite func(n int, p []byte) error // before the n-th, from 1
	onFlush func(n int) error

	mu     sync.Mutex
	header http.Header
	events []string
	body   bytes.Buffer
	writes int
	flush  int
	over   bool
}

var _ http.Flusher = (*recorder)(nil)

func newRecorder(tb testing.TB) *recorder {
	tb.Helper()
	return &recorder{tb: tb, header: make(http.Header)}
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	event := fmt.Sprintf(format, args...)
	if r.over {
		r.tb.Errorf("%s after ServeHTTP returned", event)
	}
	r.events = append(r.events, event)
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.note("header %d", status) }

func (r *recorder) Write(p []byte) (int, error) {
	r.note("write %d", len(p))
	r.mu.Lock()
	r.writes++
	n := r.writes
	r.mu.Unlock()
	if r.onWrite != nil {
		if err := r.onWrite(n, p); err != nil {
			return 0, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.Write(p)
}

func (r *recorder) Flush() { _ = r.FlushError() }

func (r *recorder) FlushError() error {
	r.note("flush")
	r.mu.Lock()
	r.flush++
	n := r.flush
	r.mu.Unlock()
	if r.onFlush != nil {
		return r.onFlush(n)
	}
	return nil
}

// finished says that ServeHTTP returned.
func (r *recorder) finished() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// Events returns the events since the last call.
func (r *recorder) Events() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := strings.Join(r.events, ", ")
	r.events = nil
	return events
}

// Body returns what was written.
func (r *recorder) Body() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.String()
}

// texts returns the messages of a body, without the end of the stream.
func texts(tb testing.TB, body string) []string {
	tb.Helper()
	var all []string
	for body != "" {
		if len(body) < 5 {
			tb.Fatalf("half a prefix: %q", body)
		}
		flags, size := body[0], int(binary.BigEndian.Uint32([]byte(body[1:5])))
		if len(body) < 5+size {
			tb.Fatalf("half a message: %q", body)
		}
		payload := body[5 : 5+size]
		body = body[5+size:]
		if flags != 0 {
			continue
		}
		all = append(all, strings.TrimPrefix(payload, textPayload("")[:1]))
		last := &all[len(all)-1]
		if *last != "" {
			_, n := binary.Uvarint([]byte(*last))
			*last = (*last)[n:]
		}
	}
	return all
}

// within runs f and fails the test if it takes longer, in the bubble's time.
func within(tb testing.TB, limit time.Duration, what string, f func()) {
	tb.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > limit {
		tb.Errorf("%s took %v, want at most %v", what, took, limit)
	}
}

// wantNothingInternal checks that an error says nothing about the server's inside.
func wantNothingInternal(tb testing.TB, what string, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	for _, secret := range []string{"i/o timeout", "deadline exceeded", "192.0.2.", "tcp"} {
		if strings.Contains(err.Error(), secret) {
			tb.Errorf("%s tells of %q: %v", what, secret, err)
		}
	}
}

var errLineCut = errors.New("line cut")

func newReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }

// proxyTo returns a reverse proxy to a server.
func proxyTo(s *conntest.Server) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", strings.TrimPrefix(s.URL, "http://")
		},
		Transport:     s.Client().Transport,
		FlushInterval: -1,
	}
}

// valve makes a burst that no scheduler can spoil: it holds up the second write
// of a server, which is the Engine's goroutine's, until all messages are sent.
type valve struct {
	open   chan struct{}
	writes atomic.Int32
}

func newValve() *valve { return &valve{open: make(chan struct{})} }

// burstMessages is how many messages make a burst: more than the window of a
// test that has one of 64 KiB, and less than the Engine's buffer.
const burstMessages = 120

// burst sends messages whose last ones wait in the Engine when it returns.
func (v *valve) burst(t *testing.T, conn connect.StreamingHandlerConn) {
	t.Helper()
	for range burstMessages {
		if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
			t.Error(err)
		}
	}
	close(v.open)
}

// around puts the valve outside of what the config has.
func (v *valve) around(config conntest.Config) conntest.Config {
	config.Window = 64 << 10
	return around(config, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(valveWriter{w, v}, r)
		})
	})
}

type valveWriter struct {
	http.ResponseWriter

	v *valve
}

func (w valveWriter) Write(p []byte) (int, error) {
	if w.v.writes.Add(1) == 2 {
		<-w.v.open
	}
	return w.ResponseWriter.Write(p)
}

func (w valveWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w valveWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
