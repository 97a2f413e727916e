package frame_test

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// limits are what a stream is read with.
type limits struct {
	maxBytes int
	allowed  frame.Flags
}

// result is all there is to know about a stream.
type result struct {
	Frames  []boundary
	Payload []string // of a Reader only
	Ended   bool
	Kind    error
	Offset  int64
	Text    string
}

type boundary struct {
	Header frame.Header
	Offset int64
}

func (r *result) fail(err error) {
	if err == nil || err == io.EOF {
		return
	}
	r.Text = err.Error()
	var e *frame.Error
	if errors.As(err, &e) {
		r.Kind, r.Offset = e.Kind, e.Offset
	}
}

// readAll reads all frames of src.
func readAll(src io.Reader, lim limits) result {
	var res result
	r := frame.NewReader(src, lim.maxBytes)
	r.Allow(lim.allowed)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			res.Ended = r.Ended()
			res.fail(err)
			return res
		}
		res.Frames = append(res.Frames, boundary{
			frame.Header{Flags: f.Flags, Length: uint32(len(f.Payload))}, f.Offset,
		})
		res.Payload = append(res.Payload, string(f.Payload))
	}
}

// scanAll feeds a stream to a Scanner in chunks whose sizes next chooses.
func scanAll(stream []byte, lim limits, next func(left int) int) result {
	if strconv.IntSize == 32 && lim.maxBytes == 0 {
		lim.maxBytes = math.MaxInt - frame.HeaderSize // the most that a Reader can hold
	}
	s := &frame.Scanner{MaxBytes: lim.maxBytes, Allowed: lim.allowed}
	var res result
	var err error
	for len(stream) > 0 && err == nil {
		n := next(len(stream))
		err = s.Feed(stream[:n], func(e frame.Event) {
			if e.Done {
				res.Frames = append(res.Frames, boundary{e.Header, e.Offset})
			}
		})
		stream = stream[n:]
	}
	if err == nil {
		err = s.Close()
	}
	res.Ended = s.Ended()
	res.fail(err)
	return res
}

// stepAll is scanAll with Next, one chunk of its own choice after the other.
func stepAll(stream []byte, lim limits, next func(left int) int) result {
	if strconv.IntSize == 32 && lim.maxBytes == 0 {
		lim.maxBytes = math.MaxInt - frame.HeaderSize
	}
	s := &frame.Scanner{MaxBytes: lim.maxBytes, Allowed: lim.allowed}
	var res result
	var err error
	for chunk := []byte(nil); err == nil && len(stream)+len(chunk) > 0; {
		if len(chunk) == 0 {
			n := next(len(stream))
			chunk, stream = stream[:n], stream[n:]
		}
		var n int
		var h frame.Header
		var done bool
		if n, h, done, err = s.Next(chunk); err != nil {
			break
		}
		if done {
			res.Frames = append(res.Frames, boundary{h, s.Offset() - h.Size()})
		}
		chunk = chunk[n:]
	}
	if err == nil {
		err = s.Close()
	}
	res.Ended = s.Ended()
	res.fail(err)
	return res
}

func whole(left int) int  { return left }
func single(left int) int { return 1 }

// random returns chunk sizes from 1 to most.
func random(seed uint64, most int) func(left int) int {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(left int) int { return 1 + rng.IntN(min(left, most)) }
}

// chunkReader reads in chunks whose sizes next chooses.
type chunkReader struct {
	data []byte
	next func(left int) int
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data[:r.next(len(r.data))])
	r.data = r.data[n:]
	return n, nil
}

// message returns a frame.
func message(flags frame.Flags, payload string) string {
	return string(frame.Append(nil, flags, []byte(payload)))
}
