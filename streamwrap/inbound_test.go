package streamwrap

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// watched is a body that calls a function before it gives its next piece.
type watched struct {
	parts  []string
	before func(room int)
}

func (w *watched) Read(p []byte) (int, error) {
	w.before(len(p))
	if len(w.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, w.parts[0])
	if w.parts[0] = w.parts[0][n:]; w.parts[0] == "" {
		w.parts = w.parts[1:]
	}
	return n, nil
}

func (w *watched) Close() error { return nil }

// TestReaderIdlesWithoutLargeBuffer: neither while it waits for the next message
// nor while the handler does something else.
func TestReaderIdlesWithoutLargeBuffer(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 10, 200, 5000, 31_000, 40_000, 200_000} {
		message := string(frameOf(size))
		var in inbound
		between := true
		src := &watched{parts: []string{message, message, message + message, message}}
		src.before = func(room int) {
			if between && (in.large != nil || room > smallRead) {
				t.Errorf("%d bytes: waits with a buffer of %d bytes", size, room)
			}
		}
		in.src, in.meter, in.size = src, new(meter), 32<<10
		in.meter.begin(true, false)
		got := make([]byte, len(message))
		for i := range 5 {
			between = i != 3 // the fourth message may be in the buffer of the third
			// As connect reads: the prefix, then the rest. Only before the prefix is
			// the stream idle.
			if _, err := io.ReadFull(&in, got[:1]); err != nil {
				t.Fatal(err)
			}
			between = false
			if _, err := io.ReadFull(&in, got[1:]); err != nil || !bytes.Equal(got, []byte(message)) {
				t.Fatalf("message %d: %v", i, err)
			}
			if i != 2 && in.large != nil {
				t.Errorf("%d bytes: the handler goes on with a buffer after message %d", size, i)
			}
		}
		if n, err := in.Read(got[:1]); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d, %v", n, err)
		}
		if in.large != nil || in.small != nil {
			t.Errorf("%d bytes: a buffer is left at the end", size)
		}
	}
}

// TestReaderAsksForMoreWhileMoreIsThere: from 32 KiB on, and for less again when
// little comes.
func TestReaderAsksForMoreWhileMoreIsThere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size, most int // of messages, and of what is asked for
		reads      int // at most, for 100 messages
	}{
		{100, 32 << 10, 20},
		{1000, 128 << 10, 20},
		{64 << 10, 128 << 10, 70},
		{200_000, 200_000, 250}, // read past the buffer
	} {
		message := string(frameOf(tt.size))
		var in inbound
		reads, largest := 0, 0
		src := &watched{parts: []string{strings.Repeat(message, 100)}, before: func(room int) {
			reads++
			largest = max(largest, room)
		}}
		in.src, in.meter, in.size = src, new(meter), 128<<10
		in.meter.begin(true, false)
		receive := func() {
			t.Helper()
			got := make([]byte, len(message))
			for _, part := range [][]byte{got[:5], got[5:]} {
				if _, err := io.ReadFull(&in, part); err != nil {
					t.Fatal(err)
				}
			}
			if string(got) != message {
				t.Errorf("%d bytes: another message", tt.size)
			}
		}
		for range 100 {
			receive()
		}
		if reads > tt.reads || largest > tt.most {
			t.Errorf("%d bytes: %d reads, of up to %d bytes", tt.size, reads, largest)
		}
		for range 20 {
			src.parts = append(src.parts, message[:5], message[5:6], message[6:])
			largest = 0
			receive()
		}
		if tt.size < firstRead && largest > firstRead {
			t.Errorf("%d bytes: asks for %d though little comes", tt.size, largest)
		}
	}
}

// TestReaderReleasesWhenClosed: in the middle of a message, with a read under way
// or without.
func TestReaderReleasesWhenClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, reading := range []bool{true, false} {
			hold := make(chan struct{})
			var in inbound
			message := string(frameOf(9000))
			src := &watched{parts: []string{message[:6000], message[6000:]}}
			src.before = func(int) {
				if len(src.parts) == 1 {
					<-hold
				}
			}
			in.src, in.meter, in.size = src, new(meter), 32<<10
			in.meter.begin(true, false)
			if _, err := io.ReadFull(&in, make([]byte, 6000)); err != nil {
				t.Fatal(err)
			}
			if in.large == nil {
				t.Fatal("no large buffer in the middle of a message")
			}
			done := make(chan struct{})
			if reading {
				go func() {
					defer close(done)
					_, _ = in.Read(make([]byte, 10))
				}()
				synctest.Wait()
			} else {
				close(done)
			}
			_ = in.Close()
			close(hold)
			<-done
			if in.large != nil || in.small != nil || in.unread != nil {
				t.Errorf("reading %v: a buffer is left", reading)
			}
		}
	})
}
