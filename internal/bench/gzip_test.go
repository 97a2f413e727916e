package bench

import (
	"bytes"
	stdgzip "compress/gzip"
	"fmt"
	"io"
	"testing"

	"connectrpc.com/connect"
	klauspostgzip "github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/proto"
)

// gzipVariants are what connect's compression pool could hold.
func gzipVariants() []gzipVariant {
	std := func(level int) func() connect.Compressor {
		return func() connect.Compressor {
			w, err := stdgzip.NewWriterLevel(io.Discard, level)
			if err != nil {
				panic("bench: gzip: " + err.Error())
			}
			return w
		}
	}
	klauspost := func(level int) func() connect.Compressor {
		return func() connect.Compressor {
			w, err := klauspostgzip.NewWriterLevel(io.Discard, level)
			if err != nil {
				panic("bench: gzip: " + err.Error())
			}
			return w
		}
	}
	stdReader := func() connect.Decompressor { return new(stdgzip.Reader) }
	klauspostReader := func() connect.Decompressor { return new(klauspostgzip.Reader) }
	return []gzipVariant{
		{"std/default", std(stdgzip.DefaultCompression), stdReader},
		{"std/fastest", std(stdgzip.BestSpeed), stdReader},
		{"klauspost/default", klauspost(klauspostgzip.DefaultCompression), klauspostReader},
		{"klauspost/fastest", klauspost(klauspostgzip.BestSpeed), klauspostReader},
		{"klauspost/stateless", klauspost(klauspostgzip.StatelessCompression), klauspostReader},
	}
}

type gzipVariant struct {
	name         string
	compressor   func() connect.Compressor
	decompressor func() connect.Decompressor
}

// BenchmarkGzip compares implementations of gzip in the role of connect's
// compressors: reset, one message, closed, and used again.
func BenchmarkGzip(b *testing.B) {
	for _, size := range []int{256, 1 << 10, 16 << 10, 64 << 10} {
		raw, err := proto.Marshal(payload(size))
		if err != nil {
			b.Fatal(err)
		}
		for _, v := range gzipVariants() {
			b.Run(fmt.Sprintf("compress/size=%d/%s", size, v.name), func(b *testing.B) {
				compressor := v.compressor()
				var compressed bytes.Buffer
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					compressed.Reset()
					compress(b, compressor, &compressed, raw)
				}
				b.ReportMetric(float64(len(raw))/float64(compressed.Len()), "ratio")
			})
			b.Run(fmt.Sprintf("decompress/size=%d/%s", size, v.name), func(b *testing.B) {
				var compressed, plain bytes.Buffer
				compress(b, gzipVariants()[0].compressor(), &compressed, raw)
				decompressor := v.decompressor()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					plain.Reset()
					if err := decompressor.Reset(bytes.NewReader(compressed.Bytes())); err != nil {
						b.Fatal(err)
					}
					if _, err := plain.ReadFrom(decompressor); err != nil {
						b.Fatal(err)
					}
				}
				if !bytes.Equal(plain.Bytes(), raw) {
					b.Fatal("decompressed to something else")
				}
			})
		}
	}
}

func compress(tb testing.TB, compressor connect.Compressor, dst *bytes.Buffer, raw []byte) {
	tb.Helper()
	compressor.Reset(dst)
	if _, err := compressor.Write(raw); err != nil {
		tb.Fatal(err)
	}
	if err := compressor.Close(); err != nil {
		tb.Fatal(err)
	}
}
