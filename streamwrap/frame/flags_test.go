package frame_test

import (
	"testing"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func TestFlags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		flags           frame.Flags
		name            string
		end, compressed bool
		grpc, connect   bool // valid in
		web, anywhere   bool
	}{
		{flags: 0, name: "none", grpc: true, connect: true, web: true, anywhere: true},
		{flags: 1, name: "compressed", compressed: true, grpc: true, connect: true, web: true, anywhere: true},
		{flags: 2, name: "end-stream", end: true, connect: true, anywhere: true},
		{flags: 3, name: "compressed|end-stream", end: true, compressed: true, connect: true, anywhere: true},
		{flags: 0x80, name: "trailers", end: true, web: true, anywhere: true},
		{flags: 0x81, name: "compressed|trailers", end: true, compressed: true, web: true, anywhere: true},
		{flags: 0x82, name: "end-stream|trailers", end: true},
		{flags: 4, name: "0x04"},
		{flags: 0xff, name: "compressed|end-stream|trailers|0x7c", end: true, compressed: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.flags.String(); got != tt.name {
				t.Errorf("String() = %q", got)
			}
			for _, check := range []struct {
				what      string
				got, want bool
			}{
				{"End()", tt.flags.End(), tt.end},
				{"Compressed()", tt.flags.Compressed(), tt.compressed},
				{"Valid(FlagsGRPC)", tt.flags.Valid(frame.FlagsGRPC), tt.grpc},
				{"Valid(FlagsConnect)", tt.flags.Valid(frame.FlagsConnect), tt.connect},
				{"Valid(FlagsGRPCWeb)", tt.flags.Valid(frame.FlagsGRPCWeb), tt.web},
				{"Valid(FlagsAny)", tt.flags.Valid(frame.FlagsAny), tt.anywhere},
				{"Valid(0)", tt.flags.Valid(0), tt.anywhere},
			} {
				if check.got != check.want {
					t.Errorf("%s = %v", check.what, check.got)
				}
			}
		})
	}
}
