package streamwrap

import (
	"fmt"

	"connectrpc.com/connect"
)

const (
	defaultReadBuffer = 128 << 10
	defaultSendBuffer = 512 << 10
)

// EngineOption configures an [Engine].
type EngineOption interface{ applyEngine(*engineConfig) }

type engineOption func(*engineConfig)

func (o engineOption) applyEngine(c *engineConfig) { o(c) }

// engineConfig is what the options of an Engine set.
type engineConfig struct {
	readBuffer int
	sendBuffer int
	inline     bool // no coalescing

	sendMaxBytes     int
	compressMinBytes int
	codecs           map[string]connect.Codec
	compressions     map[string]*compression

	observers []ExchangeFunc
}

func defaultEngineConfig() engineConfig {
	return engineConfig{
		readBuffer: defaultReadBuffer,
		sendBuffer: defaultSendBuffer,
		codecs:     map[string]connect.Codec{"proto": protoCodec{}, "json": jsonCodec{}},
		compressions: map[string]*compression{
			gzipName: newCompression(newGzipReader, newGzipWriter),
		},
	}
}

// WithReadBuffer sets how many bytes the Engine asks for at once, at most, when a
// message arrives. It begins with 32 KiB, and with more only while more than that
// is there. Larger messages are read past the buffer. It panics if size is less
// than 4 KiB. By default it is 128 KiB.
func WithReadBuffer(size int) EngineOption {
	if size < minBuffer {
		panic("streamwrap: WithReadBuffer: less than 4 KiB")
	}
	return engineOption(func(c *engineConfig) { c.readBuffer = size })
}

// WithSendBuffer sets how many bytes of a stream's messages may wait before Send
// blocks: half of them, while the other half is on its way to net/http. That
// bounds the memory of a stream whose receiver is slow, besides what net/http
// buffers. Clients keep a message more in either half. It panics if size is less than 8 KiB. By default it is 512 KiB.
func WithSendBuffer(size int) EngineOption {
	if size < 2*minBuffer {
		panic("streamwrap: WithSendBuffer: less than 8 KiB")
	}
	return engineOption(func(c *engineConfig) { c.sendBuffer = size })
}

// WithoutCoalescing makes every message of a handler leave in a write of its
// own, on the goroutine that sends it, as without the Engine. By default the
// messages of a burst leave together.
func WithoutCoalescing() EngineOption {
	return engineOption(func(c *engineConfig) { c.inline = true })
}

// WithSendMaxBytes tells the Engine of the [connect.WithSendMaxBytes] of the
// clients that have it as an interceptor. Longer messages are refused with
// [connect.CodeResourceExhausted]. By default, and if it is not positive, there
// is no limit, as in connect.
func WithSendMaxBytes(limit int) EngineOption {
	return engineOption(func(c *engineConfig) { c.sendMaxBytes = limit })
}

// WithCompressMinBytes tells the Engine of the [connect.WithCompressMinBytes] of
// the clients that have it as an interceptor: shorter messages are not
// compressed. By default it is 0, as in connect.
func WithCompressMinBytes(size int) EngineOption {
	return engineOption(func(c *engineConfig) { c.compressMinBytes = size })
}

// WithCodec tells the Engine of a [connect.WithCodec] of the clients that have
// it as an interceptor. It replaces the codec of that name. Streams with a codec
// that the Engine does not know send through connect. By default it knows
// connect's "proto" and "json".
func WithCodec(codec connect.Codec) EngineOption {
	if codec == nil {
		panic("streamwrap: WithCodec: nil codec")
	}
	return engineOption(func(c *engineConfig) { c.codecs[codec.Name()] = codec })
}

// WithCompression tells the Engine of a compression: of the
// [connect.WithSendCompression] of the clients that have it as an interceptor,
// and of those that the peers use, so that [ExchangeEnd] can tell the code of a
// stream whose end is compressed. It replaces the compression of that name.
// Streams with one that the Engine does not know send through connect. By
// default it knows "gzip", at the standard library's default level, as connect.
func WithCompression(
	name string,
	newDecompressor func() connect.Decompressor,
	newCompressor func() connect.Compressor,
) EngineOption {
	if name == "" || newDecompressor == nil || newCompressor == nil {
		panic(fmt.Sprintf("streamwrap: WithCompression: empty name or nil function for %q", name))
	}
	return engineOption(func(c *engineConfig) {
		c.compressions[name] = newCompression(newDecompressor, newCompressor)
	})
}

// WithExchangeObserver adds a function that is told of every HTTP request that
// passes the Engine, on handlers and on clients; see [ExchangeFunc]. By default
// there is none. Several are called in the order of their options, and the
// functions that they return in the reverse order.
func WithExchangeObserver(observer ExchangeFunc) EngineOption {
	if observer == nil {
		panic("streamwrap: WithExchangeObserver: nil function")
	}
	return engineOption(func(c *engineConfig) { c.observers = append(c.observers, observer) })
}
