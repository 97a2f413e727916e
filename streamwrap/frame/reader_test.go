package frame_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func TestReaderReturnsPayloads(t *testing.T) {
	t.Parallel()
	// Sizes around the buffer's, so that frames straddle its end, fill it, and
	// make it grow.
	sizes := []int{0, 1, 16 << 10, 16<<10 - 5, 16<<10 - 6, 7, 40_000, 3, 200_000, 0, 65_536, 5}
	var stream []byte
	for i, size := range sizes {
		stream = frame.Append(stream, frame.Flags(i%2), bytes.Repeat([]byte{byte(i + 1)}, size))
	}
	for name, src := range map[string]io.Reader{
		"whole":  bytes.NewReader(stream),
		"random": &chunkReader{stream, random(7, 30_000)},
		"tiny":   &chunkReader{stream, random(8, 50)},
		"data":   iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := frame.NewReader(src, 200_000)
			var offset int64
			for i, size := range sizes {
				f, err := r.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if f.Offset != offset || f.Flags != frame.Flags(i%2) {
					t.Errorf("frame %d: flags %v at %d, want %d", i, f.Flags, f.Offset, offset)
				}
				if !bytes.Equal(f.Payload, bytes.Repeat([]byte{byte(i + 1)}, size)) {
					t.Errorf("frame %d: wrong payload of %d bytes, want %d", i, len(f.Payload), size)
				}
				if offset += int64(size) + 5; r.Offset() != offset {
					t.Errorf("frame %d: Offset() = %d, want %d", i, r.Offset(), offset)
				}
			}
			if _, err := r.ReadFrame(); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestReaderDoesNotLetPayloadsGrowIntoTheNext(t *testing.T) {
	t.Parallel()
	r := frame.NewReader(strings.NewReader(message(0, "one")+message(0, "two")), 0)
	f, err := r.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	_ = append(f.Payload, "xxxxxxxx"...)
	if f, err := r.ReadFrame(); err != nil || string(f.Payload) != "two" {
		t.Errorf("second frame: %q, %v", f.Payload, err)
	}
}

// scripted is a source whose reads are written down.
type scripted struct{ reads []read }

type read struct {
	data string
	err  error
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.reads) == 0 {
		return 0, nil
	}
	r := s.reads[0]
	s.reads = s.reads[1:]
	return copy(p, r.data), r.err
}

type wrongCount int

func (n wrongCount) Read([]byte) (int, error) { return int(n), nil }

func TestReaderPassesErrorsOfItsSourceOn(t *testing.T) {
	t.Parallel()
	errReset := errors.New("reset")
	hello := message(0, "hello")
	tests := []struct {
		name   string
		src    io.Reader
		frames int
		err    error // nil: any that is not io.EOF
	}{
		{"between frames", &scripted{[]read{{hello, nil}, {"", errReset}}}, 1, errReset},
		{"together with a frame", &scripted{[]read{{hello, errReset}}}, 1, errReset},
		{"in a prefix", &scripted{[]read{{"\x00", errReset}}}, 0, errReset},
		{"in a payload", &scripted{[]read{{hello[:6], nil}, {"x", errReset}}}, 0, errReset},
		{"after the end", &scripted{[]read{{message(2, "{}"), nil}, {"", errReset}}}, 1, errReset},
		{"the source's own truncation", &scripted{[]read{{hello, io.ErrUnexpectedEOF}}}, 1, io.ErrUnexpectedEOF},
		{"no progress", &scripted{[]read{{hello, nil}}}, 1, io.ErrNoProgress},
		{"negative count", wrongCount(-1), 0, nil},
		{"impossible count", wrongCount(1 << 20), 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := frame.NewReader(tt.src, 0)
			for range tt.frames {
				if _, err := r.ReadFrame(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // it stays
				_, err := r.ReadFrame()
				if err == nil || err == io.EOF || tt.err != nil && err != tt.err {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			}
		})
	}
}

func TestReaderStopsAtAnError(t *testing.T) {
	t.Parallel()
	hello := message(0, "hello")
	for name, src := range map[string]io.Reader{
		"malformed":  strings.NewReader(message(4, "") + hello),
		"cut":        &scripted{[]read{{hello[:3], io.EOF}, {hello, nil}}},
		"error once": &scripted{[]read{{"", errors.New("once")}, {hello, nil}}},
	} {
		r := frame.NewReader(src, 0)
		_, first := r.ReadFrame()
		if _, second := r.ReadFrame(); first == nil || second != first {
			t.Errorf("%s: %v, then %v", name, first, second)
		}
	}
}

func TestReaderToleratesEmptyReads(t *testing.T) {
	t.Parallel()
	var reads []read
	for _, c := range message(0, "hello") {
		for range 99 {
			reads = append(reads, read{})
		}
		reads = append(reads, read{string(c), nil})
	}
	r := frame.NewReader(&scripted{reads}, 0)
	if f, err := r.ReadFrame(); err != nil || string(f.Payload) != "hello" {
		t.Errorf("%q, %v", f.Payload, err)
	}
}

func TestReaderResets(t *testing.T) {
	t.Parallel()
	r := frame.NewReader(strings.NewReader(message(2, "")+"junk"), 3)
	r.Allow(frame.FlagsConnect)
	if _, err := r.ReadFrame(); err != nil || !r.Ended() {
		t.Fatal(err)
	}
	if _, err := r.ReadFrame(); !errors.Is(err, frame.ErrAfterEnd) {
		t.Fatal(err)
	}
	r.Reset(strings.NewReader(message(0, "abc") + message(0x80, "")))
	f, err := r.ReadFrame()
	if err != nil || string(f.Payload) != "abc" || f.Offset != 0 || r.Ended() {
		t.Errorf("first frame: %+v, %v", f, err)
	}
	if _, err := r.ReadFrame(); !errors.Is(err, frame.ErrReservedFlags) {
		t.Errorf("the flags were forgotten: %v", err)
	}
	r.Reset(strings.NewReader(message(0, "abcd")))
	if _, err := r.ReadFrame(); !errors.Is(err, frame.ErrTooLarge) {
		t.Errorf("the limit was forgotten: %v", err)
	}
	r.Reset(nil)
	if _, err := r.ReadFrame(); err == nil || err == io.EOF {
		t.Errorf("without a source: %v", err)
	}
}

func TestNewReaderPanics(t *testing.T) {
	t.Parallel()
	for want, build := range map[string]func(){
		"frame: NewReader: nil reader":        func() { frame.NewReader(nil, 0) },
		"frame: NewReader: negative maxBytes": func() { frame.NewReader(strings.NewReader(""), -1) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panic %v, want %s", got, want)
				}
			}()
			build()
		}()
	}
}
