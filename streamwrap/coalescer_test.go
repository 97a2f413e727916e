package streamwrap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sink is a ResponseWriter that shows what is written, while it is.
type sink struct {
	write func(p []byte) error
	flush func() error
}

func (s *sink) Header() http.Header { return nil }

func (s *sink) WriteHeader(int) {}

func (s *sink) Write(p []byte) (int, error) {
	if s.write != nil {
		if err := s.write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *sink) Flush() { _ = s.FlushError() }

func (s *sink) FlushError() error {
	if s.flush != nil {
		return s.flush()
	}
	return nil
}

func newCoalescer(to http.ResponseWriter, limit int) *coalescer {
	c := &coalescer{to: to, meter: new(meter), limit: limit}
	c.meter.begin(true, false)
	return c
}

// frameOf returns a message as it travels.
func frameOf(size int) []byte {
	b := make([]byte, 5+size)
	binary.BigEndian.PutUint32(b[1:], uint32(size))
	return b
}

// state returns what an idle stream must not have.
func (c *coalescer) state() (waiting, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting != nil, c.busy || c.burst
}

// TestCoalescerIdlesWithoutBufferAndGoroutine: whatever was sent before.
func TestCoalescerIdlesWithoutBufferAndGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var written int
		c := newCoalescer(&sink{write: func(p []byte) error { written += len(p); return nil }}, 8<<10)
		total := 0
		for _, burst := range []int{1, 2, 1, 100, 3} {
			for _, size := range []int{0, 10, 3000, 8 << 10, 20_000} {
				for range burst {
					message := frameOf(size)
					for _, part := range [][]byte{message[:5], message[5:]} {
						if n, err := c.Write(part); n != len(part) || err != nil {
							t.Fatal(n, err)
						}
					}
					if err := c.Flush(); err != nil {
						t.Fatal(err)
					}
					total += len(message)
				}
				synctest.Wait()
				if waiting, busy := c.state(); waiting || busy {
					t.Fatalf("after %d messages of %d: waiting %v, busy %v", burst, size, waiting, busy)
				}
				time.Sleep(time.Duration(burst%2) * time.Second)
			}
		}
		if p := c.finish(false, false); p != nil || written != total || c.meter.stats().Bytes != int64(total) {
			t.Errorf("%v, %d bytes written, %d counted, want %d", p, written, c.meter.stats().Bytes, total)
		}
	})
}

// TestCoalescerIsNotStuckInABurst: the end of a handler must tell its own
// goroutine, which writes as long as the client takes, from one of the handler's,
// also at a moment at which that goroutine holds the lock.
func TestCoalescerIsNotStuckInABurst(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := newCoalescer(&sink{}, 64<<10)
		c.busy, c.burst = true, true
		c.mu.Lock()
		asking, stuck := make(chan struct{}), make(chan bool)
		go func() {
			close(asking)
			stuck <- c.stuck()
		}()
		<-asking
		for range 100 {
			runtime.Gosched()
		}
		c.mu.Unlock()
		if <-stuck {
			t.Fatal("stuck, and nobody else writes")
		}
	}
}

// TestCoalescerIsStuckInAWrite: a goroutine of the handler's writes by itself.
func TestCoalescerIsStuckInAWrite(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{true, false} {
		release, writing := make(chan struct{}), make(chan struct{})
		c := newCoalescer(&sink{write: func([]byte) error {
			close(writing)
			<-release
			return nil
		}}, 8<<10)
		c.plain = plain
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.Write(frameOf(20_000)) // more than may wait
		}()
		<-writing
		if !c.stuck() {
			t.Errorf("not stuck, plain %v", plain)
		}
		close(release)
		<-done
		if c.stuck() {
			t.Errorf("stuck at the end, plain %v", plain)
		}
	}
}

// TestCoalescerDoesNotReuseWhatFailed: net/http may still read from the buffer of
// a write that failed.
func TestCoalescerDoesNotReuseWhatFailed(t *testing.T) {
	t.Parallel()
	failure := errors.New("failed")
	for range 50 { // a pool does not always give back what it got
		var kept []byte
		c := newCoalescer(&sink{write: func(p []byte) error { kept = p; return failure }}, 64<<10)
		_, _ = c.Write(frameOf(5000))
		if err := c.Flush(); !errors.Is(err, failure) {
			t.Fatal(err)
		}
		b := getBuffer(5000)
		if &b.b[:1][0] == &kept[0] {
			t.Fatal("the buffer is in the pool")
		}
		b.release()
	}
}

// TestCoalescerBuffersAreBounded: what waits has not more room than it may need.
func TestCoalescerBuffersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 32 << 10
		release := make(chan struct{})
		c := newCoalescer(&sink{flush: func() error { <-release; return nil }}, limit)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 200 {
				_, _ = c.Write(frameOf(1000))
				_ = c.Flush()
			}
		}()
		release <- struct{}{} // the first message
		synctest.Wait()
		c.mu.Lock()
		if c.waiting == nil || len(c.waiting.b) > limit || cap(c.waiting.b) > limit {
			t.Errorf("buffer %+v", c.waiting)
		}
		c.mu.Unlock()
		close(release)
		<-done
		c.finish(false, false)
	})
}

// TestCoalescerFillsTheFramesOfABurst: while more waits, only whole frames leave,
// in order; and at the end all that is left, however it ends.
func TestCoalescerFillsTheFramesOfABurst(t *testing.T) {
	t.Parallel()
	for _, size := range []int{10_000, 16<<10 - 5, 40_000, 64<<10 + 3, 100_000, 250_000} {
		for _, pause := range []time.Duration{0, time.Second} { // before the handler returns
			synctest.Test(t, func(t *testing.T) {
				var got []byte
				writes, ragged := 0, 0
				c := newCoalescer(&sink{write: func(p []byte) error {
					writes++
					if len(p)%frameSize != 0 {
						ragged++
					}
					time.Sleep(time.Millisecond) // more comes meanwhile
					got = append(got, p...)
					return nil
				}}, 256<<10)
				var want []byte
				for i := range 100 {
					message := frameOf(size)
					for j := range size {
						message[5+j] = byte(i + j)
					}
					for _, part := range [][]byte{message[:5], message[5:]} {
						if n, err := c.Write(part); n != len(part) || err != nil {
							t.Fatal(n, err)
						}
					}
					if err := c.Flush(); err != nil {
						t.Fatal(err)
					}
					want = append(want, message...)
				}
				time.Sleep(pause)
				if p := c.finish(false, false); p != nil {
					t.Error(p)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("messages of %d: %d bytes written of %d, or in another order", size, len(got), len(want))
				}
				// The first one goes alone, and what the buffer cannot hold beside
				// another is written as it is.
				if most := 5; size <= 64<<10+3 && ragged > most {
					t.Errorf("messages of %d: %d of %d writes do not end with a frame, want at most %d", size, ragged, writes, most)
				}
				if waiting, busy := c.state(); waiting || busy {
					t.Errorf("messages of %d: waiting %v, busy %v", size, waiting, busy)
				}
			})
		}
	}
}

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
