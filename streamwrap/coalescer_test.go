package streamwrap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"runtime"
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
