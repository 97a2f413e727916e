package streamwrap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// engineWiring says where an Engine stands on a client.
type engineWiring struct {
	name  string
	http  bool // its HTTPClient is used
	conn  bool // it is the innermost interceptor
	hooks bool // an interceptor of streamwrap's stands outside of it
}

// engineWirings are those whose HTTPClient is used.
var engineWirings = []engineWiring{
	{name: "HTTPClient alone", http: true},
	{name: "HTTPClient and hooks", http: true, hooks: true},
	{name: "HTTPClient and conn", http: true, conn: true},
	{name: "all", http: true, conn: true, hooks: true},
}

// clients returns clients whose HTTPClient is client, through an Engine.
func (w engineWiring) clients(
	s *conntest.Server, c conntest.Case, client connect.HTTPClient, e *streamwrap.Engine, opts ...connect.ClientOption,
) *conntest.Clients {
	opts = append([]connect.ClientOption{c.Option()}, opts...)
	if w.hooks {
		opts = append(opts, connect.WithInterceptors(newWireLog("client").Interceptor))
	}
	if w.conn {
		opts = append(opts, connect.WithInterceptors(e))
	}
	if w.http {
		client = e.HTTPClient(client)
	}
	return conntest.NewClients(client, s.URL, opts...)
}

// rawBody is a body as it travelled.
type rawBody struct {
	mu sync.Mutex
	b  []byte
}

func (b *rawBody) add(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = append(b.b, p...)
}

func (b *rawBody) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.b)
}

// frames returns the frames of the body.
func (b *rawBody) frames(tb testing.TB) []rawFrame {
	tb.Helper()
	var frames []rawFrame
	for raw := b.Bytes(); len(raw) > 0; {
		if len(raw) < 5 || len(raw)-5 < int(binary.BigEndian.Uint32(raw[1:])) {
			tb.Errorf("%d bytes are left of a frame", len(raw))
			break
		}
		end := 5 + int(binary.BigEndian.Uint32(raw[1:]))
		frames = append(frames, rawFrame{flags: raw[0], payload: raw[5:end]})
		raw = raw[end:]
	}
	return frames
}

type rawFrame struct {
	flags   byte
	payload []byte
}

// The flags of frames.
const (
	rawCompressed = 1
	rawEndStream  = 2
	rawTrailers   = 128
)

// messages returns the frames that are no end of the stream.
func messageFrames(frames []rawFrame) []rawFrame {
	var messages []rawFrame
	for _, f := range frames {
		if f.flags&(rawEndStream|rawTrailers) == 0 {
			messages = append(messages, f)
		}
	}
	return messages
}

// rawReader records what is read from a body.
type rawReader struct {
	io.ReadCloser
	to *rawBody
}

func (r rawReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.to.add(p[:n])
	return n, err
}

// rawExchange is one request and its response, as they travelled.
type rawExchange struct {
	method            string
	requestHeader     http.Header
	request, response rawBody
	status            int            // of the response
	header            http.Header    // of the response
	res               *http.Response // its Trailer is there when it was read
}

// rawClient records what passes between an Engine and the transport.
type rawClient struct {
	connect.HTTPClient

	mu        sync.Mutex
	exchanges []*rawExchange
}

func (c *rawClient) Do(r *http.Request) (*http.Response, error) {
	x := &rawExchange{method: r.Method, requestHeader: r.Header.Clone()}
	c.mu.Lock()
	c.exchanges = append(c.exchanges, x)
	c.mu.Unlock()
	r = r.WithContext(r.Context())
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = rawReader{r.Body, &x.request}
	}
	res, err := c.HTTPClient.Do(r)
	if err == nil {
		x.status, x.header, x.res = res.StatusCode, res.Header.Clone(), res
		res.Body = rawReader{res.Body, &x.response}
	}
	return res, err
}

// Exchanges returns the exchanges so far.
func (c *rawClient) Exchanges() []*rawExchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*rawExchange(nil), c.exchanges...)
}

// rawServer is middleware that records the bodies of requests.
type rawServer struct {
	mu     sync.Mutex
	bodies []*rawBody
}

func (s *rawServer) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &rawBody{}
		s.mu.Lock()
		s.bodies = append(s.bodies, body)
		s.mu.Unlock()
		r.Body = rawReader{r.Body, body}
		next.ServeHTTP(w, r)
	})
}

// body returns the only body.
func (s *rawServer) body(tb testing.TB) *rawBody {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.bodies) != 1 {
		tb.Fatalf("the server got %d requests, want 1", len(s.bodies))
	}
	return s.bodies[0]
}

// uploads is a service that takes what comes, and then says how many messages
// there were.
type uploadLog struct {
	mu       sync.Mutex
	messages [][]byte
}

func (l *uploadLog) service() conntest.Service {
	return conntest.Service{
		Client: func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			n, err := l.take(stream.Conn())
			return connect.NewResponse(conntest.Text(strconv.Itoa(n))), err
		},
		Bidi: func(_ context.Context, stream *bidiStream) error {
			n, err := l.take(stream.Conn())
			if err != nil {
				return err
			}
			return stream.Send(conntest.Text(strconv.Itoa(n)))
		},
	}
}

func (l *uploadLog) take(conn connect.StreamingHandlerConn) (n int, _ error) {
	for {
		var msg conntest.Message
		if err := conn.Receive(&msg); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
		n++
		l.mu.Lock()
		l.messages = append(l.messages, msg.GetValue())
		l.mu.Unlock()
	}
}

func (l *uploadLog) Messages() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages
}

// payload returns the n-th message's text, which compresses well but not to
// nothing.
func payload(n, size int) []byte {
	pattern := make([]byte, 251)
	for i := range pattern {
		pattern[i] = byte(i*i*7 + n*13)
	}
	return bytes.Repeat(pattern, size/len(pattern)+1)[:size]
}

// wireFact is what hooks learned of one message.
type wireFact struct {
	size       int
	compressed bool
}

func (f wireFact) String() string {
	if f.compressed {
		return fmt.Sprintf("%d compressed", f.size)
	}
	return strconv.Itoa(f.size)
}

// wireLife is what the hooks of one RPC learned of the wire.
type wireLife struct {
	call *streamwrap.Call

	mu             sync.Mutex
	sent, received []wireFact
	ends           int
	end            streamwrap.End
}

// wireLog is an interceptor that records what hooks learn of the wire.
type wireLog struct {
	*streamwrap.Interceptor

	name string

	mu    sync.Mutex
	lives []*wireLife
}

func newWireLog(name string) *wireLog {
	l := &wireLog{name: name}
	l.Interceptor = streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
			life := &wireLife{call: call}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lives = append(l.lives, life)
			return nil, life, nil
		},
		Sent: func(life *wireLife, _ context.Context, m *streamwrap.Message) {
			life.mu.Lock()
			defer life.mu.Unlock()
			if m.Err == nil {
				life.sent = append(life.sent, wireFact{m.WireBytes, m.Compressed})
			}
		},
		Received: func(life *wireLife, _ context.Context, m *streamwrap.Message) error {
			life.mu.Lock()
			defer life.mu.Unlock()
			if m.Err == nil {
				life.received = append(life.received, wireFact{m.WireBytes, m.Compressed})
			}
			return nil
		},
		End: func(life *wireLife, _ context.Context, e *streamwrap.End) {
			life.mu.Lock()
			defer life.mu.Unlock()
			life.ends++
			life.end = *e
		},
	})
	return l
}

func (l *wireLog) Lives() []*wireLife {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*wireLife(nil), l.lives...)
}

// Life returns the only RPC.
func (l *wireLog) Life(tb testing.TB) *wireLife {
	tb.Helper()
	lives := l.Lives()
	if len(lives) != 1 {
		tb.Fatalf("%s saw %d RPCs, want 1", l.name, len(lives))
	}
	return lives[0]
}
