package streamwrap

import (
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// framer turns the messages of one stream into frames, as connect would, with
// the same errors.
type framer struct {
	engine      *Engine
	codec       connect.Codec
	compression *compression // nil: none

	room int // what the last message took
}

// init prepares for the messages of a request with the headers. It reports false
// if the Engine does not know how to encode them.
func (f *framer) init(e *Engine, h http.Header) bool {
	p, codec := parseContentType(h.Get("Content-Type"))
	if !p.framed() {
		return false
	}
	encoding := p.encoding(h)
	f.engine, f.codec, f.compression = e, e.codecs[codec], e.compressions[encoding]
	return f.codec != nil && (encoding == "" || f.compression != nil)
}

// append appends a message's frame to dst, which may be nil, and returns the
// buffer to go on with. If it fails that has what dst had.
func (f *framer) append(dst *buffer, message any) (*buffer, frame.Header, error) {
	dst = dst.grow(f.room + frame.HeaderSize)
	start := len(dst.b)
	var h frame.Header
	payload, err := f.marshal(append(dst.b, make([]byte, frame.HeaderSize)...), message)
	if err == nil {
		dst = dst.moved(payload)
		dst, h, err = f.compress(dst, start+frame.HeaderSize)
	}
	if err != nil {
		dst.b = dst.b[:start]
		return dst, frame.Header{}, err
	}
	f.room = int(h.Length)
	frame.PutHeader(dst.b[start:], h)
	return dst, h, nil
}

// marshal appends the marshaled message to dst.
func (f *framer) marshal(dst []byte, message any) (_ []byte, err error) {
	if codec, ok := f.codec.(appender); ok {
		dst, err = codec.MarshalAppend(dst, message)
	} else {
		var payload []byte
		payload, err = f.codec.Marshal(message)
		dst = append(dst, payload...)
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("marshal message: %w", err))
	}
	return dst, nil
}

// compress compresses the payload, which begins at start, if it is long enough,
// and checks its length.
func (f *framer) compress(b *buffer, start int) (*buffer, frame.Header, error) {
	size := len(b.b) - start
	if f.compression == nil || size < f.engine.compressMinBytes {
		return b, frame.Header{Length: uint32(size)}, f.check("message", size)
	}
	scratch := getBuffer(size)
	defer func() { scratch.release() }()
	compressed, err := f.compression.compress(scratch.b, b.b[start:])
	if err != nil {
		return b, frame.Header{}, connect.NewError(connect.CodeInternal, err)
	}
	scratch = scratch.moved(compressed)
	b = b.moved(append(b.b[:start], compressed...))
	size = len(compressed)
	return b, frame.Header{Flags: frame.FlagCompressed, Length: uint32(size)}, f.check("compressed message", size)
}

// check refuses a payload that is too long.
func (f *framer) check(what string, size int) error {
	switch maxBytes := f.engine.sendMaxBytes; {
	case maxBytes > 0 && size > maxBytes:
		return connect.NewError(connect.CodeResourceExhausted,
			fmt.Errorf("%s size %d exceeds sendMaxBytes %d", what, size, maxBytes))
	case uint64(size) > frame.MaxLength:
		return connect.NewError(connect.CodeUnknown, fmt.Errorf("%s size %d out of bounds", what, size))
	default:
		return nil
	}
}
