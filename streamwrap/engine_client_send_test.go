package streamwrap_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

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
	conn := client(srv).Upload(t.Context(), c.Kind)
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
