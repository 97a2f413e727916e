// Package frame is the envelope codec of streams in Connect, gRPC and gRPC-Web:
// the 5-byte prefix before each message, and the two messages that end a
// stream. It depends on nothing but the standard library.
//
// A frame is a byte of [Flags], the payload's length as a big-endian uint32, and
// the payload. All three protocols frame requests and responses this way;
// unary Connect bodies have no frames. gRPC ends a stream with HTTP trailers.
// Connect ends responses with a frame that has [FlagEndStream], whose payload is
// an [EndStream], and gRPC-Web with one that has [FlagTrailers], whose payload
// is a block of [Trailers].
//
// # Writing
//
// [Append] adds a frame to a buffer. [PutHeader] fills in a prefix for which
// room was left, so that a message can be marshaled where it will be sent from.
//
// # Reading
//
// [Reader] takes frames from an [io.Reader], one payload at a time. [Scanner]
// is for those who stand beside a stream rather than at its end: it is fed the
// chunks as they pass, of any size, and tells where frames begin and end. Both
// take the same streams for valid and report the same error for others.
// [Parse] reads a prefix from a byte slice.
//
// Payloads are never decompressed: [FlagCompressed] says that they need to be.
//
// # Untrusted input
//
// A prefix may claim 4 GiB. Nothing here allocates on the strength of a claim:
// buffers grow as bytes arrive, to at most twice their number and never beyond
// the limit given. [ParseEndStream] and [ParseTrailers] have [Limits] of their
// own.
//
// # Errors
//
// Malformed input gives an [*Error]. Its Kind is one of this package's
// sentinels and its Offset is the byte at which the input stopped being valid:
//
//	kind              offset of
//	ErrTruncated      the end of the input
//	ErrReservedFlags  the flags
//	ErrTooLarge       the length; the first byte too many in a parsed payload
//	ErrAfterEnd       the first byte after the frame that ends the stream
//	ErrEndStream      the offending JSON value or byte
//	ErrTrailers       the offending line or byte
//	ErrTooManyKeys    the first key too many
//
// An error that matches [io.EOF] is always the clean end of a stream.
//
// # Cost
//
// Append with enough room, Reader once its buffer has its size, Scanner and
// Parse do not allocate. A frame costs a few nanoseconds besides the copying of
// its payload, which Scanner does not do.
package frame
