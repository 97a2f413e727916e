package frame

import (
	"fmt"
	"strings"
)

// Flags is the first byte of a frame: a set of bits.
type Flags uint8

const (
	// FlagCompressed marks a payload that is compressed, in all protocols.
	FlagCompressed Flags = 0x01
	// FlagEndStream marks the last frame of a Connect stream. Its payload is
	// an [EndStream].
	FlagEndStream Flags = 0x02
	// FlagTrailers marks the last frame of a gRPC-Web stream. Its payload is a
	// block of [Trailers].
	FlagTrailers Flags = 0x80
)

// The flags that each protocol gives a meaning to; all others are reserved.
const (
	FlagsGRPC    = FlagCompressed
	FlagsConnect = FlagCompressed | FlagEndStream
	FlagsGRPCWeb = FlagCompressed | FlagTrailers
	FlagsAny     = FlagsConnect | FlagsGRPCWeb
)

const flagsEnd = FlagEndStream | FlagTrailers

// Compressed reports whether the payload is compressed.
func (f Flags) Compressed() bool { return f&FlagCompressed != 0 }

// End reports whether the frame ends its stream, in Connect or in gRPC-Web.
func (f Flags) End() bool { return f&flagsEnd != 0 }

// Valid reports whether a frame may have these flags when those in allowed have
// a meaning. No protocol has frames that end a stream in two ways. Zero stands
// for [FlagsAny].
func (f Flags) Valid(allowed Flags) bool {
	if allowed == 0 {
		allowed = FlagsAny
	}
	return f&^allowed == 0 && f&flagsEnd != flagsEnd
}

// String returns the names of the flags joined by "|", reserved bits as a
// hexadecimal number, and "none" if there are none.
func (f Flags) String() string {
	if f == 0 {
		return "none"
	}
	var names []string
	if f.Compressed() {
		names = append(names, "compressed")
	}
	if f&FlagEndStream != 0 {
		names = append(names, "end-stream")
	}
	if f&FlagTrailers != 0 {
		names = append(names, "trailers")
	}
	if reserved := f &^ FlagsAny; reserved != 0 {
		names = append(names, fmt.Sprintf("%#02x", uint8(reserved)))
	}
	return strings.Join(names, "|")
}
