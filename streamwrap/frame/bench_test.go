package frame_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// payloads yields a small, a middling and a large payload, with names.
func payloads(yield func(name string, payload []byte) bool) {
	for _, size := range []int{16, 1 << 10, 64 << 10} {
		if !yield(fmt.Sprintf("%dB", size), make([]byte, size)) {
			return
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for name, payload := range payloads {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)) + frame.HeaderSize)
			dst := make([]byte, 0, len(payload)+frame.HeaderSize)
			for b.Loop() {
				frame.Append(dst, 0, payload)
			}
		})
	}
}

// BenchmarkCopy is what to compare the others with: the payload copied once.
func BenchmarkCopy(b *testing.B) {
	for name, payload := range payloads {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			dst := make([]byte, len(payload))
			for b.Loop() {
				copy(dst, payload)
			}
		})
	}
}

// BenchmarkReader reads back-to-back frames from a source as fast as memory, at
// most 32 KiB at a time where frames are smaller.
func BenchmarkReader(b *testing.B) {
	for name, payload := range payloads {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			one := frame.Append(nil, 0, payload)
			b.SetBytes(int64(len(one)))
			r := frame.NewReader(&loop{data: bytes.Repeat(one, max(1, 32<<10/len(one)))}, 0)
			for b.Loop() {
				if _, err := r.ReadFrame(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkScanner scans 64 KiB of back-to-back frames, or one that is as large,
// in chunks of 16 KiB. One operation is all of it.
func BenchmarkScanner(b *testing.B) {
	for name, payload := range payloads {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			one := frame.Append(nil, 0, payload)
			stream := bytes.Repeat(one, max(1, 64<<10/len(one)))
			b.SetBytes(int64(len(stream)))
			var s frame.Scanner
			frames := 0
			count := func(e frame.Event) {
				if e.Done {
					frames++
				}
			}
			for b.Loop() {
				for left := stream; len(left) > 0; {
					n := min(len(left), 16<<10)
					if err := s.Feed(left[:n], count); err != nil {
						b.Fatal(err)
					}
					left = left[n:]
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
		})
	}
}

func BenchmarkParseEndStream(b *testing.B) {
	end := frame.EndStream{
		Error: &frame.EndError{
			Code: "resource_exhausted", Message: "try again later",
			Details: []frame.Detail{{Type: "google.rpc.RetryInfo", Value: []byte{1, 2, 3}}},
		},
		Metadata: map[string][]string{"Acme-Id": {"1"}, "Date": {"today"}},
	}
	for name, payload := range map[string][]byte{"success": []byte("{}"), "error": end.Append(nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := frame.ParseEndStream(payload, frame.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseTrailers(b *testing.B) {
	block := frame.Trailers{"Grpc-Status": {"8"}, "Grpc-Message": {"try again later"}, "Acme-Id": {"1"}}.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := frame.ParseTrailers(block, frame.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
