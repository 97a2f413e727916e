package streamwrap

import (
	"compress/gzip"

	"connectrpc.com/connect"
)

const gzipName = "gzip"

// HandlerCompression makes handlers compress, for clients that accept gzip, the
// messages that have at least minBytes, and those fast. connect's default is to
// compress every message, even of a few bytes, which makes those longer and is most
// of what a stream of them costs, at a level that takes up to five times as long to save up
// to a fifth more. 1 KiB is a good threshold.
//
// It replaces connect's gzip. Any other implementation can be given to
// [connect.WithCompression] in the same way, with [connect.WithCompressMinBytes].
// It panics if minBytes is negative.
func HandlerCompression(minBytes int) connect.HandlerOption {
	if minBytes < 0 {
		panic("streamwrap: HandlerCompression: negative minBytes")
	}
	return connect.WithHandlerOptions(
		connect.WithCompression(gzipName, newGzipReader, newFastGzipWriter),
		connect.WithCompressMinBytes(minBytes),
	)
}

// ClientCompression is [HandlerCompression] for what clients send; they accept
// gzip anyway. An [Engine] among the interceptors of the client needs
// [EngineCompression] with the same threshold. It panics if minBytes is negative.
func ClientCompression(minBytes int) connect.ClientOption {
	if minBytes < 0 {
		panic("streamwrap: ClientCompression: negative minBytes")
	}
	return connect.WithClientOptions(
		connect.WithAcceptCompression(gzipName, newGzipReader, newFastGzipWriter),
		connect.WithSendCompression(gzipName),
		connect.WithCompressMinBytes(minBytes),
	)
}

// EngineCompression tells an [Engine] of the [ClientCompression] of the clients
// that have it as an interceptor. It panics if minBytes is negative.
func EngineCompression(minBytes int) EngineOption {
	if minBytes < 0 {
		panic("streamwrap: EngineCompression: negative minBytes")
	}
	return engineOption(func(c *engineConfig) {
		c.compressMinBytes = minBytes
		c.compressions[gzipName] = newCompression(newGzipReader, newFastGzipWriter)
	})
}

func newGzipReader() connect.Decompressor { return &gzip.Reader{} }

func newGzipWriter() connect.Compressor { return gzip.NewWriter(nil) }

func newFastGzipWriter() connect.Compressor {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level exists
	return w
}
