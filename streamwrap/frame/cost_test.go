package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// loop is an endless stream of the same frames.
type loop struct {
	data []byte
	next int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.data[l.next:])
	if l.next += n; l.next == len(l.data) {
		l.next = 0
	}
	return n, nil
}

// A message's path does not allocate, whatever its size.
func TestMessagesDoNotAllocate(t *testing.T) {
	for _, size := range []int{0, 16, 1 << 10, 64 << 10} {
		payload := make([]byte, size)
		stream := frame.Append(nil, 0, payload)
		dst := make([]byte, 0, len(stream))
		reader := frame.NewReader(&loop{data: stream}, 0)
		if _, err := reader.ReadFrame(); err != nil { // the buffer gets its size
			t.Fatal(err)
		}
		var scanner frame.Scanner
		var frames, bytes int64
		count := func(e frame.Event) {
			if e.Done {
				frames++
				bytes += e.Size()
			}
		}
		chunks := [][]byte{stream[:3], stream[3 : 5+size/2], stream[5+size/2:]}
		for name, op := range map[string]func() error{
			"Append": func() error { frame.Append(dst, frame.FlagCompressed, payload); return nil },
			"Parse":  func() error { _, _, err := frame.Parse(stream); return err },
			"short": func() error {
				if _, _, err := frame.Parse(stream[:4]); err != frame.ErrIncomplete {
					return errors.New("no ErrIncomplete")
				}
				return nil
			},
			"Reader":   func() error { _, err := reader.ReadFrame(); return err },
			"Scanner":  func() error { return scanner.Feed(stream, count) },
			"anywhere": func() error { return scanner.Feed(stream, func(e frame.Event) { frames += e.Offset }) },
			"chunks": func() error {
				for _, chunk := range chunks {
					if err := scanner.Feed(chunk, count); err != nil {
						return err
					}
				}
				return nil
			},
		} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				var failed error
				allocs := testing.AllocsPerRun(100, func() {
					if err := op(); err != nil {
						failed = err
					}
				})
				if failed != nil {
					t.Fatal(failed)
				}
				if allocs != 0 {
					t.Errorf("%v allocations", allocs)
				}
			})
		}
	}
}

func TestReaderKeepsItsBuffer(t *testing.T) {
	stream := frame.Append(nil, 0, make([]byte, 100_000))
	src := bytes.NewReader(stream)
	r := frame.NewReader(src, 0)
	allocs := testing.AllocsPerRun(20, func() {
		src.Reset(stream)
		r.Reset(src)
		if _, err := r.ReadFrame(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations after Reset", allocs)
	}
}
