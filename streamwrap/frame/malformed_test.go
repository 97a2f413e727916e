package frame_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// TestStreams reads streams, most of them malformed, with Reader and Scanner in
// several ways, which all have to say the same.
func TestStreams(t *testing.T) {
	t.Parallel()
	hello := message(0, "hello") // 10 bytes
	end := message(frame.FlagEndStream, "{}")
	tests := []struct {
		name   string
		stream string
		limits limits
		frames int
		kind   error
		offset int64
		text   string
	}{
		{name: "empty"},
		{name: "frames", stream: hello + message(1, "") + hello, frames: 3},
		{name: "frames and end", stream: hello + end, frames: 2},
		{name: "end with trailers", stream: message(frame.FlagTrailers|1, "x"), frames: 1},
		{name: "as long as the limit", stream: hello, limits: limits{maxBytes: 5}, frames: 1},
		{
			name: "prefix cut", stream: hello + "\x00\x00", frames: 1,
			kind: frame.ErrTruncated, offset: 12, text: "prefix has 2 of 5 bytes",
		},
		{
			name: "prefix cut that could be reserved flags", stream: "\x7f\xff\xff\xff",
			kind: frame.ErrTruncated, offset: 4, text: "prefix has 4 of 5 bytes",
		},
		{
			name: "payload missing", stream: hello + hello[:5], frames: 1,
			kind: frame.ErrTruncated, offset: 15, text: "payload has 0 of 5 bytes",
		},
		{
			name: "payload cut", stream: hello + hello[:9], frames: 1,
			kind: frame.ErrTruncated, offset: 19, text: "payload has 4 of 5 bytes",
		},
		{
			name: "claim of 1 GiB", stream: "\x00\x40\x00\x00\x00x",
			kind: frame.ErrTruncated, offset: 6, text: "payload has 1 of 1073741824 bytes",
		},
		{
			name: "end cut", stream: end[:6],
			kind: frame.ErrTruncated, offset: 6, text: "payload has 1 of 2 bytes",
		},
		{
			name: "over the limit", stream: hello + message(0, "123456"), limits: limits{maxBytes: 5}, frames: 1,
			kind: frame.ErrTooLarge, offset: 11, text: "length 6 exceeds 5 bytes",
		},
		{
			name: "over the limit, nothing arrived", stream: "\x01\xff\xff\xff\xff", limits: limits{maxBytes: 1 << 20},
			kind: frame.ErrTooLarge, offset: 1, text: "length 4294967295 exceeds 1048576 bytes",
		},
		{
			name: "reserved flags", stream: hello + message(0x41, "x"), frames: 1,
			kind: frame.ErrReservedFlags, offset: 10, text: "flags 0x41 (compressed|0x40)",
		},
		{
			name: "reserved flags come before the limit", stream: message(4, "123456"), limits: limits{maxBytes: 5},
			kind: frame.ErrReservedFlags, offset: 0, text: "flags 0x04 (0x04)",
		},
		{
			name: "two ends in one", stream: message(0x82, ""),
			kind: frame.ErrReservedFlags, offset: 0, text: "flags 0x82 (end-stream|trailers)",
		},
		{
			name: "trailers in Connect", stream: message(0x80, ""), limits: limits{allowed: frame.FlagsConnect},
			kind: frame.ErrReservedFlags, offset: 0, text: "flags 0x80 (trailers)",
		},
		{
			name: "end-stream in gRPC", stream: end, limits: limits{allowed: frame.FlagsGRPC},
			kind: frame.ErrReservedFlags, offset: 0, text: "flags 0x02 (end-stream)",
		},
		{
			name: "frame after the end", stream: end + hello, frames: 1,
			kind: frame.ErrAfterEnd, offset: 7, text: "at least one more byte",
		},
		{
			name: "byte after the end", stream: hello + message(0x80, "") + "\x00", frames: 2,
			kind: frame.ErrAfterEnd, offset: 15, text: "at least one more byte",
		},
		{
			name: "text", stream: "HTTP/1.1 502 Bad Gateway\r\n",
			kind: frame.ErrReservedFlags, offset: 0, text: "flags 0x48 (0x48)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := readAll(strings.NewReader(tt.stream), tt.limits)
			if len(want.Frames) != tt.frames || want.Kind != tt.kind || want.Offset != tt.offset {
				t.Fatalf("%d frames, %v at %d", len(want.Frames), want.Kind, want.Offset)
			}
			if !strings.Contains(want.Text, ": "+tt.text+",") && tt.text != want.Text {
				t.Errorf("error %q, want %q", want.Text, tt.text)
			}
			for name, src := range map[string]io.Reader{
				"one byte": iotest.OneByteReader(strings.NewReader(tt.stream)),
				"half":     iotest.HalfReader(strings.NewReader(tt.stream)),
				"data+err": iotest.DataErrReader(strings.NewReader(tt.stream)),
			} {
				if diff := cmp.Diff(want, readAll(src, tt.limits), cmpopts.EquateErrors()); diff != "" {
					t.Errorf("Reader, %s (-want +got):\n%s", name, diff)
				}
			}
			want.Payload = nil
			for name, next := range map[string]func(int) int{"whole": whole, "single": single, "random": random(1, 7)} {
				got := scanAll([]byte(tt.stream), tt.limits, next)
				if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
					t.Errorf("Scanner, %s (-Reader +Scanner):\n%s", name, diff)
				}
			}
		})
	}
}

func TestTruncationIsNeverTheCleanEnd(t *testing.T) {
	t.Parallel()
	stream := message(0, "hello")
	for n := 1; n < len(stream); n++ {
		_, err := frame.NewReader(strings.NewReader(stream[:n]), 0).ReadFrame()
		var e *frame.Error
		if !errors.As(err, &e) || e.Offset != int64(n) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if !errors.Is(err, frame.ErrTruncated) || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			t.Errorf("%d bytes: %v matches the wrong errors", n, err)
		}
	}
}

func TestBufferGrowsWithWhatArrives(t *testing.T) {
	t.Parallel()
	const claim = 1 << 30
	for _, arrived := range []int{0, 100, 20_000, 300_000} {
		head := frame.AppendHeader(nil, frame.Header{Length: claim})
		r := frame.NewReader(bytes.NewReader(append(head, make([]byte, arrived)...)), claim)
		if _, err := r.ReadFrame(); !errors.Is(err, frame.ErrTruncated) {
			t.Fatalf("%d bytes: %v", arrived, err)
		}
		if got, most := frame.BufferSize(r), max(16<<10, 2*(arrived+5)); got > most {
			t.Errorf("%d bytes arrived, the buffer has %d", arrived, got)
		}
	}
	payload := make([]byte, 100_000)
	r := frame.NewReader(bytes.NewReader(frame.Append(nil, 0, payload)), len(payload))
	if _, err := r.ReadFrame(); err != nil {
		t.Fatal(err)
	}
	if got := frame.BufferSize(r); got != len(payload)+frame.HeaderSize {
		t.Errorf("a frame of 100005 bytes needed a buffer of %d", got)
	}
}
