package streamwrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// appender is what connect's own codecs do besides: marshal without an
// allocation.
type appender interface {
	MarshalAppend(dst []byte, message any) ([]byte, error)
}

var errUnmarshal = errors.New("this codec only marshals")

// protoCodec and jsonCodec marshal as connect's codecs of the same names do.
// The Engine unmarshals nothing.
type (
	protoCodec struct{}
	jsonCodec  struct{}
)

func (protoCodec) Name() string { return "proto" }

func (c protoCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

func (protoCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

func (protoCodec) Unmarshal([]byte, any) error { return errUnmarshal }

func (jsonCodec) Name() string { return "json" }

func (c jsonCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

func (jsonCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	m, err := protoMessage(message)
	if err != nil {
		return nil, err
	}
	return protojson.MarshalOptions{}.MarshalAppend(dst, m)
}

func (jsonCodec) Unmarshal([]byte, any) error { return errUnmarshal }

func protoMessage(message any) (proto.Message, error) {
	if m, ok := message.(proto.Message); ok {
		return m, nil
	}
	return nil, fmt.Errorf("%T doesn't implement proto.Message", message)
}

// compression pools what compresses and decompresses in one way.
type compression struct {
	decompressors, compressors sync.Pool
}

func newCompression(newDecompressor func() connect.Decompressor, newCompressor func() connect.Compressor) *compression {
	return &compression{
		decompressors: sync.Pool{New: func() any { return newDecompressor() }},
		compressors:   sync.Pool{New: func() any { return newCompressor() }},
	}
}

// compress appends the compressed payload to dst.
func (c *compression) compress(dst, payload []byte) ([]byte, error) {
	w, _ := c.compressors.Get().(connect.Compressor)
	out := bytes.NewBuffer(dst)
	w.Reset(out)
	if _, err := w.Write(payload); err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("recycle compressor: %w", err)
	}
	w.Reset(io.Discard)
	c.compressors.Put(w)
	return out.Bytes(), nil
}

// decompress returns the decompressed payload, if that is not longer than limit.
func (c *compression) decompress(payload []byte, limit int) (_ []byte, ok bool) {
	d, _ := c.decompressors.Get().(connect.Decompressor)
	if d.Reset(bytes.NewReader(payload)) != nil {
		return nil, false
	}
	out, err := io.ReadAll(io.LimitReader(d, int64(limit)+1))
	if err != nil || len(out) > limit || d.Close() != nil {
		return nil, false
	}
	_ = d.Reset(http.NoBody) // let go of the payload
	c.decompressors.Put(d)
	return out, true
}
