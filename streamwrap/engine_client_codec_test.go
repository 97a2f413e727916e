package streamwrap_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
