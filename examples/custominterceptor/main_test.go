package main

import (
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
	"google.golang.org/protobuf/proto"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
)

// TestContract checks what every interceptor must keep.
func TestContract(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor { return limitMessages(1 << 20) })
}

func TestLimit(t *testing.T) {
	t.Parallel()
	l := &limit{64}
	short, long := &greetv1.GreetRequest{Name: "Ada"}, &greetv1.GreetRequest{Name: strings.Repeat("a", 63)}
	for _, tt := range []struct {
		msg  proto.Message
		want connect.Code
	}{
		{short, 0},
		{long, connect.CodeResourceExhausted},
	} {
		var got connect.Code
		if err := l.check(t.Context(), tt.msg); err != nil {
			got = connect.CodeOf(err)
		}
		if got != tt.want {
			t.Errorf("message of %d bytes: code %v, want %v", proto.Size(tt.msg), got, tt.want)
		}
	}
	if err := l.check(t.Context(), nil); err != nil {
		t.Errorf("no message: %v", err)
	}
}

func Example() {
	main()
	// Output:
	// Ada: greeted
	// Ada, and everybody e…: resource_exhausted: message of 83 bytes is over the limit of 64
}
