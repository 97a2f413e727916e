package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// The response of a Connect stream: a message and the end.
func response() []byte {
	stream := frame.Append(nil, 0, []byte("hello"))
	end := frame.EndStream{Error: &frame.EndError{Code: "aborted", Message: "try again"}}
	return frame.Append(stream, frame.FlagEndStream, end.Append(nil))
}

func ExampleReader() {
	r := frame.NewReader(bytes.NewReader(response()), 1<<20)
	r.Allow(frame.FlagsConnect)
	for {
		f, err := r.ReadFrame()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("at %d, %v: %s\n", f.Offset, f.Flags, f.Payload)
	}
	fmt.Println("ended:", r.Ended())
	// Output:
	// at 0, none: hello
	// at 10, end-stream: {"error":{"code":"aborted","message":"try again"}}
	// ended: true
}

// A Scanner sees a stream as it passes, in chunks of any size.
func ExampleScanner() {
	s := frame.Scanner{Allowed: frame.FlagsConnect, Capture: frame.DefaultMaxBytes}
	for chunk := range bytes.Lines(bytes.ReplaceAll(response(), []byte("l"), []byte("\n"))) {
		err := s.Feed(chunk, func(e frame.Event) {
			if e.Done {
				fmt.Printf("%d bytes from %d to %d\n", e.Length, e.Offset, e.End())
			}
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("cut:", s.Close())
	if payload, whole := s.Captured(); whole {
		end, err := frame.ParseEndStream(payload, frame.Limits{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(end.Error.Code)
	}
	// Output:
	// 5 bytes from 0 to 10
	// 50 bytes from 10 to 65
	// cut: <nil>
	// aborted
}

// A message can be marshaled where it will be sent from.
func ExamplePutHeader() {
	buf := make([]byte, frame.HeaderSize, 64)
	buf = append(buf, "marshaled"...)
	frame.PutHeader(buf, frame.Header{Length: uint32(len(buf) - frame.HeaderSize)})
	fmt.Printf("%q\n", buf)
	// Output: "\x00\x00\x00\x00\tmarshaled"
}

func ExampleParseTrailers() {
	block := []byte("grpc-status: 5\r\ngrpc-message: no such user\r\n")
	trailers, err := frame.ParseTrailers(block, frame.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(http.Header(trailers).Get("Grpc-Status"))

	_, err = frame.ParseTrailers([]byte("grpc-status 5\r\n"), frame.Limits{})
	var e *frame.Error
	if errors.As(err, &e) && errors.Is(err, frame.ErrTrailers) {
		fmt.Printf("%d: %s\n", e.Offset, e.Detail)
	}
	// Output:
	// 5
	// 0: line without a colon
}

func ExampleError() {
	_, err := frame.NewReader(bytes.NewReader(response()[:8]), 0).ReadFrame()
	fmt.Println(err)
	fmt.Println(errors.Is(err, frame.ErrTruncated), errors.Is(err, io.ErrUnexpectedEOF))
	// Output:
	// truncated frame: unexpected EOF: payload has 3 of 5 bytes, at offset 8
	// true true
}
