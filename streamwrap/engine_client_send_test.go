package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// uploadResult is all there is to see of an upload.
type uploadResult struct {
	sendErrs []string // of each Send, with its code
	err      error    // of the first Receive that failed
	replies  []string
	messages [][]byte // as the handler got them
	raw      *rawBody // of the request, as it reached the server
}

// headersOnly among the messages of an upload stands for Send(nil).
type headersOnly struct{}

// uploadTo sends the messages on a new stream, to a server of its own, and
// receives what comes back.
func uploadTo(
	t *testing.T, c conntest.Case, client func(*conntest.Server) *conntest.Clients, opts []connect.HandlerOption, messages ...any,
) uploadResult {
	t.Helper()
	var log uploadLog
	var raw rawServer
	srv := c.Start(t, conntest.Config{Service: log.service(), Wrap: raw.wrap, HandlerOptions: opts})
	conn := openUpload(t.Context(), client(srv), c.Kind)
	var result uploadResult
	for _, msg := range messages {
		if _, ok := msg.(headersOnly); ok {
			msg = nil
		}
		err := conn.Send(msg)
		text := "ok"
		if err != nil {
			text = connect.CodeOf(err).String() + " " + err.Error()
			if !isCoded(err) {
				t.Errorf("Send: %T has no code", err)
			}
		}
		result.sendErrs = append(result.sendErrs, text)
	}
	if err := conn.CloseRequest(); err != nil {
		t.Errorf("CloseRequest: %v", err)
	}
	for {
		var reply conntest.Message
		if result.err = conn.Receive(&reply); result.err != nil {
			break
		}
		result.replies = append(result.replies, string(reply.GetValue()))
	}
	if err := conn.CloseResponse(); err != nil {
		t.Errorf("CloseResponse: %v", err)
	}
	if call := srv.WaitCalls(1)[0]; !errors.Is(call.ReceiveErr, io.EOF) || call.Err != nil {
		t.Errorf("the server must see a complete request: %v", call)
	}
	result.messages, result.raw = log.Messages(), raw.body(t)
	return result
}

// wantSame compares an upload through an Engine with one without.
func wantSame(t *testing.T, got, want uploadResult) {
	t.Helper()
	if !slices.Equal(got.sendErrs, want.sendErrs) {
		t.Errorf("Send returned\n\t%s\nwithout the Engine\n\t%s",
			strings.Join(got.sendErrs, "\n\t"), strings.Join(want.sendErrs, "\n\t"))
	}
	if !slices.EqualFunc(got.messages, want.messages, bytes.Equal) {
		t.Errorf("the handler got %d messages, without the Engine %d, or they differ", len(got.messages), len(want.messages))
	}
	if !bytes.Equal(got.raw.Bytes(), want.raw.Bytes()) {
		t.Errorf("the request has %d bytes, without the Engine %d, or they differ", len(got.raw.Bytes()), len(want.raw.Bytes()))
	}
	if !slices.Equal(got.replies, want.replies) || connect.CodeOf(got.err) != connect.CodeOf(want.err) || !errors.Is(got.err, io.EOF) {
		t.Errorf("replies %v and %v, without the Engine %v and %v", got.replies, got.err, want.replies, want.err)
	}
}

// bare returns clients without an Engine.
func bare(c conntest.Case, opts ...connect.ClientOption) func(*conntest.Server) *conntest.Clients {
	return func(s *conntest.Server) *conntest.Clients { return c.Clients(s, opts...) }
}

// wired returns clients with all of an Engine.
func wired(c conntest.Case, e *streamwrap.Engine, opts ...connect.ClientOption) func(*conntest.Server) *conntest.Clients {
	return func(s *conntest.Server) *conntest.Clients {
		return engineWiring{http: true, conn: true}.clients(s, c, s.Client(), e, opts...)
	}
}

// sized returns messages of the given sizes; a negative one is Send(nil).
func sized(sizes ...int) []any {
	var messages []any
	for i, size := range sizes {
		if size < 0 {
			messages = append(messages, headersOnly{})
			continue
		}
		messages = append(messages, wrapperspb.Bytes(payload(i, size)))
	}
	return messages
}

// TestEngineClientSendsWhatConnectSends compares every byte of a request, and
// all that its user sees, with connect's own.
func TestEngineClientSendsWhatConnectSends(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		sizes []int
		json  bool // that alone
	}{
		{"nothing", nil, false},
		{"headers only", []int{-1}, false},
		{"one empty", []int{0}, false},
		{"empty first", []int{0, 1, 0, 1 << 10}, false},
		{"headers first", []int{-1, 1, -1, 1 << 10}, false},
		{"empty in the middle", []int{1, 0, 0, 300 << 10, 0}, false},
		{"large", []int{1 << 10, 3 << 20, 0, 1}, false},
		{"large first, in JSON", []int{3 << 20, 1, 1 << 20}, true},
	} {
		for _, encoding := range []string{"identity", "gzip"} {
			t.Run(tt.name+"/"+encoding, func(t *testing.T) {
				t.Parallel()
				m := conntest.Matrix{Transports: web, Codecs: conntest.AllCodecs(), Kinds: uploads}
				if slices.Max(append(tt.sizes, 0)) > 1<<20 { // they take long
					m = conntest.Matrix{Transports: h2, Kinds: uploads}
				}
				if tt.json {
					m.Codecs, m.Protocols = []conntest.Codec{conntest.JSON}, []conntest.Protocol{conntest.Connect}
				}
				m.EachBubble(t, func(t *testing.T, c conntest.Case) {
					var opts []connect.ClientOption
					if encoding == "gzip" {
						opts = append(opts, connect.WithSendGzip())
					}
					messages := sized(tt.sizes...)
					want := uploadTo(t, c, bare(c, opts...), nil, messages...)
					got := uploadTo(t, c, wired(c, streamwrap.NewEngine(), opts...), nil, messages...)
					wantSame(t, got, want)
					for i, f := range got.raw.frames(t) {
						if compressed := f.flags == rawCompressed; compressed != (encoding == "gzip") || f.flags > rawCompressed {
							t.Errorf("frame %d has flags %x", i+1, f.flags)
						}
					}
				})
			})
		}
	}
}

// TestEngineClientCompressesWhatConnectDoes: with the same threshold on both.
func TestEngineClientCompressesWhatConnectDoes(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 97, 98, 99, 1 << 10, 0}
	for _, threshold := range []int{0, 1, 100, 101, 1 << 20} {
		t.Run(strconv.Itoa(threshold), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				opts := []connect.ClientOption{connect.WithSendGzip(), connect.WithCompressMinBytes(threshold)}
				want := uploadTo(t, c, bare(c, opts...), nil, sized(sizes...)...)
				e := streamwrap.NewEngine(streamwrap.WithCompressMinBytes(threshold))
				got := uploadTo(t, c, wired(c, e, opts...), nil, sized(sizes...)...)
				wantSame(t, got, want)
				for i, f := range got.raw.frames(t) {
					msg := wrapperspb.Bytes(payload(i, sizes[i]))
					if compressed := f.flags == rawCompressed; compressed != (proto.Size(msg) >= threshold) {
						t.Errorf("a message of %d bytes: flags %x", proto.Size(msg), f.flags)
					}
				}
			})
		})
	}
}

// TestEngineClientSendMaxBytes: what is too long is refused as by connect, first
// or later, and the stream goes on.
func TestEngineClientSendMaxBytes(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"identity", "gzip"} {
		for name, sizes := range map[string][]int{
			"later":       {10, 2 << 10, 10, 64 << 10, 0},
			"first":       {2 << 10, 10, 2 << 10, 10},
			"at the edge": {10, 197, 198, 196, 1},
		} {
			t.Run(encoding+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := conntest.Matrix{Transports: h2, Codecs: conntest.AllCodecs(), Kinds: uploads}
				m.EachBubble(t, func(t *testing.T, c conntest.Case) {
					const limit = 200
					opts := []connect.ClientOption{connect.WithSendMaxBytes(limit)}
					if encoding == "gzip" {
						opts = append(opts, connect.WithSendGzip())
					}
					var messages []any
					for i, size := range sizes {
						messages = append(messages, wrapperspb.Bytes(noise(i, size)))
					}
					want := uploadTo(t, c, bare(c, opts...), nil, messages...)
					e := streamwrap.NewEngine(streamwrap.WithSendMaxBytes(limit))
					got := uploadTo(t, c, wired(c, e, opts...), nil, messages...)
					wantSame(t, got, want)
					if len(got.messages) == len(sizes) || len(got.messages) == 0 {
						t.Errorf("the handler got %d of %d messages", len(got.messages), len(sizes))
					}
				})
			})
		}
	}
}

// noise returns a message's text that does not compress.
func noise(n, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// TestEngineClientMarshalErrors: what cannot be marshaled fails as with connect,
// first or later, and the stream goes on.
func TestEngineClientMarshalErrors(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]any{
		"not a message":           struct{}{},
		"a pointer to no message": new(int),
		"invalid UTF-8":           wrapperspb.String("\xff"),
		"a typed nil":             (*conntest.Message)(nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := conntest.Matrix{Transports: h2, Codecs: conntest.AllCodecs(), Kinds: uploads}
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, messages := range [][]any{
					{conntest.Text("one"), wrong, conntest.Text("two"), wrong, wrong, conntest.Text("three")},
					{wrong, conntest.Text("one"), wrong, conntest.Text("two")},
				} {
					want := uploadTo(t, c, bare(c), nil, messages...)
					wantSame(t, uploadTo(t, c, wired(c, streamwrap.NewEngine()), nil, messages...), want)
				}
			})
		})
	}
}

// upperCodec is a codec that only a test knows. It counts what it marshals.
type upperCodec struct {
	connect.Codec

	name  string
	count *atomic.Int64
}

func newUpperCodec(name string) upperCodec {
	return upperCodec{name: name, count: new(atomic.Int64)}
}

func (c upperCodec) Name() string { return c.name }

func (c upperCodec) Marshal(msg any) ([]byte, error) {
	m, ok := msg.(*conntest.Message)
	if !ok {
		return nil, errors.New("not mine")
	}
	c.count.Add(1)
	return append([]byte("text:"), bytes.ToUpper(m.GetValue())...), nil
}

func (c upperCodec) Unmarshal(data []byte, msg any) error {
	value, ok := bytes.CutPrefix(data, []byte("text:"))
	if !ok {
		return fmt.Errorf("%q is not mine", data)
	}
	msg.(*conntest.Message).Value = bytes.Clone(value)
	return nil
}

// TestEngineClientCodecs: a codec that the Engine knows carries messages past
// the pipe; with one that it does not know they take the pipe. The first one
// always does.
func TestEngineClientCodecs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		codec  string
		known  bool
		engine int64 // messages that the Engine marshaled, of 4
	}{
		{"unknown", "upper", false, 0},
		{"known", "upper", true, 3},
		{"replaced", "proto", true, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				connects, engines := newUpperCodec(tt.codec), newUpperCodec(tt.codec)
				e := streamwrap.NewEngine()
				if tt.known {
					e = streamwrap.NewEngine(streamwrap.WithCodec(engines))
				}
				handler := []connect.HandlerOption{connect.WithCodec(newUpperCodec(tt.codec))}
				messages := []any{
					conntest.Text("one"), conntest.Text("two"), wrapperspb.String("wrong"), conntest.Text(""), conntest.Text("three"),
				}
				want := uploadTo(t, c, bare(c, connect.WithCodec(connects)), handler, messages...)
				connects.count.Store(0)
				got := uploadTo(t, c, wired(c, e, connect.WithCodec(connects)), handler, messages...)
				wantSame(t, got, want)
				if string(bytes.Join(got.messages, []byte(" "))) != "ONE TWO  THREE" {
					t.Errorf("the handler got %q", got.messages)
				}
				if n := engines.count.Load(); n != tt.engine || connects.count.Load() != 4-n {
					t.Errorf("the Engine marshaled %d messages and connect %d", n, connects.count.Load())
				}
			})
		})
	}
}

// xorCoder is a compression that only a test knows. It counts what it
// compresses, and may fail.
type xorCoder struct {
	w     io.Writer
	count *atomic.Int64
	fail  string
}

func (c *xorCoder) Reset(w io.Writer) { c.w = w }

func (c *xorCoder) Write(p []byte) (int, error) {
	if c.fail == "Write" && len(p) > 10 {
		return 0, errors.New("cannot write")
	}
	q := bytes.Clone(p)
	for i := range q {
		q[i] ^= 0x55
	}
	return c.w.Write(q)
}

func (c *xorCoder) Close() error {
	if c.count.Add(1) > 2 && c.fail == "Close" {
		return errors.New("cannot close")
	}
	_, err := c.w.Write([]byte("end"))
	return err
}

// xorDecoder reads what xorCoder wrote.
type xorDecoder struct{ r *bytes.Reader }

func (d *xorDecoder) Close() error { return nil }

func (d *xorDecoder) Read(p []byte) (int, error) { return d.r.Read(p) }

func (d *xorDecoder) Reset(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	b, ok := bytes.CutSuffix(b, []byte("end"))
	if !ok {
		b = nil
	}
	for i := range b {
		b[i] ^= 0x55
	}
	d.r = bytes.NewReader(b)
	return nil
}

func newXORDecoder() connect.Decompressor { return &xorDecoder{r: bytes.NewReader(nil)} }

// TestEngineClientCompressions is TestEngineClientCodecs for compressions.
func TestEngineClientCompressions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		known  bool
		engine int64 // messages that the Engine compressed, of 4
	}{
		{"unknown", false, 0},
		{"known", true, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var connects, engines, servers atomic.Int64
				coder := func(n *atomic.Int64) func() connect.Compressor {
					return func() connect.Compressor { return &xorCoder{count: n} }
				}
				e := streamwrap.NewEngine()
				if tt.known {
					e = streamwrap.NewEngine(streamwrap.WithCompression("xor", newXORDecoder, coder(&engines)))
				}
				opts := []connect.ClientOption{
					connect.WithAcceptCompression("xor", newXORDecoder, coder(&connects)), connect.WithSendCompression("xor"),
				}
				handler := []connect.HandlerOption{connect.WithCompression("xor", newXORDecoder, coder(&servers))}
				messages := sized(3, 1<<10, 0, 300<<10)
				want := uploadTo(t, c, bare(c, opts...), handler, messages...)
				connects.Store(0)
				wantSame(t, uploadTo(t, c, wired(c, e, opts...), handler, messages...), want)
				if n := engines.Load(); n != tt.engine || connects.Load() != 4-n {
					t.Errorf("the Engine compressed %d messages and connect %d", n, connects.Load())
				}
			})
		})
	}
}

// TestEngineClientCompressionErrors: they have connect's code and text.
func TestEngineClientCompressionErrors(t *testing.T) {
	t.Parallel()
	for _, fail := range []string{"Write", "Close"} {
		t.Run(fail, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				upload := func(with bool) uploadResult {
					var count, servers atomic.Int64
					coder := func() connect.Compressor { return &xorCoder{count: &count, fail: fail} }
					opts := []connect.ClientOption{
						connect.WithAcceptCompression("xor", newXORDecoder, coder), connect.WithSendCompression("xor"),
					}
					handler := []connect.HandlerOption{connect.WithCompression("xor", newXORDecoder,
						func() connect.Compressor { return &xorCoder{count: &servers} })}
					client := bare(c, opts...)
					if with {
						client = wired(c, streamwrap.NewEngine(streamwrap.WithCompression("xor", newXORDecoder, coder)), opts...)
					}
					return uploadTo(t, c, client, handler, sized(3, 2, 100, 4)...)
				}
				wantSame(t, upload(true), upload(false))
			})
		})
	}
}

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
				conn := openUpload(t.Context(), clients(srv), c.Kind)
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
				conn := openUpload(ctx, clients, c.Kind)
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
