package frame_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func TestHeader(t *testing.T) {
	t.Parallel()
	tests := []struct {
		header frame.Header
		bytes  string
	}{
		{frame.Header{}, "\x00\x00\x00\x00\x00"},
		{frame.Header{Flags: 1, Length: 0x01020304}, "\x01\x01\x02\x03\x04"},
		{frame.Header{Flags: 0x80, Length: frame.MaxLength}, "\x80\xff\xff\xff\xff"},
	}
	for _, tt := range tests {
		if got := frame.AppendHeader([]byte("x"), tt.header); string(got) != "x"+tt.bytes {
			t.Errorf("AppendHeader(%+v) = %q", tt.header, got)
		}
		put := []byte("123456")
		if frame.PutHeader(put, tt.header); string(put) != tt.bytes+"6" {
			t.Errorf("PutHeader(%+v): %q", tt.header, put)
		}
		got, n, err := frame.Parse([]byte(tt.bytes + "payload"))
		if got != tt.header || n != frame.HeaderSize || err != nil {
			t.Errorf("Parse(%q) = %+v, %d, %v", tt.bytes, got, n, err)
		}
		if got, want := tt.header.Size(), int64(tt.header.Length)+5; got != want {
			t.Errorf("%+v: Size() = %d", tt.header, got)
		}
	}
}

func TestParseNeedsTheWholePrefix(t *testing.T) {
	t.Parallel()
	for n := range frame.HeaderSize {
		h, used, err := frame.Parse([]byte("\xff\xff\xff\xff")[:n])
		if h != (frame.Header{}) || used != 0 || err != frame.ErrIncomplete {
			t.Errorf("%d bytes: %+v, %d, %v", n, h, used, err)
		}
	}
}

func TestParseReturnsWhatItRefuses(t *testing.T) {
	t.Parallel()
	h, n, err := frame.Parse([]byte("\x44\x00\x00\x00\x02"))
	if want := (frame.Header{Flags: 0x44, Length: 2}); h != want || n != frame.HeaderSize {
		t.Errorf("got %+v, %d", h, n)
	}
	if !errors.Is(err, frame.ErrReservedFlags) {
		t.Errorf("error %v", err)
	}
	if want := "reserved frame flags: flags 0x44 (0x44), at offset 0"; err.Error() != want {
		t.Errorf("error %q", err)
	}
}

func TestPutHeaderPanicsWithoutRoom(t *testing.T) {
	t.Parallel()
	short := []byte("1234")
	defer func() {
		if recover() == nil || string(short) != "1234" {
			t.Errorf("no panic, or wrote %q", short)
		}
	}()
	frame.PutHeader(short, frame.Header{})
}

func TestAppend(t *testing.T) {
	t.Parallel()
	payload := []byte("payload")
	got := frame.Append([]byte("before"), frame.FlagCompressed, payload)
	if want := "before\x01\x00\x00\x00\x07payload"; string(got) != want {
		t.Errorf("got %q", got)
	}
	got[len(got)-1] = 'x'
	if !bytes.Equal(payload, []byte("payload")) {
		t.Error("the frame shares memory with its payload")
	}
	if got := frame.Append(nil, 0, nil); string(got) != "\x00\x00\x00\x00\x00" {
		t.Errorf("empty frame: %q", got)
	}
}
