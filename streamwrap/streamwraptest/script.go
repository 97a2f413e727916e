package streamwraptest

import (
	"net/http"
	"testing"
)

// Script is what happens on a scripted conn. The zero value is a bidirectional
// stream over the Connect protocol whose other side sends nothing, ends
// cleanly, and takes whatever it is sent.
type Script struct {
	// RPC is the RPC that the conn belongs to.
	RPC RPC

	// Receive is what successive calls of Receive do. Afterwards they return
	// the last error again, as connect does; if there was none, an error that
	// matches io.EOF and is coded and wrapped like connect's.
	Receive []Step

	// Send is what successive calls of Send with a message do. Afterwards they
	// succeed. Send(nil) sends the headers, always succeeds and plays no step.
	Send []Step

	// ResponseHeader and ResponseTrailer are what the server of a client's
	// stream answers. They are copied. Handlers ignore them.
	ResponseHeader, ResponseTrailer http.Header

	// IgnoreContext makes a client's conn deaf as net/http's HTTP/2 is: once
	// the response has begun, the end of the context does not end a blocked
	// Send or Receive, only CloseResponse does.
	IgnoreContext bool

	// Quiet makes the conn count messages instead of recording operations. An
	// operation then allocates nothing besides what [proto.Merge] does to copy
	// a message, which is nothing for numbers and strings.
	Quiet bool

	// TB, if set, fails the test when the conn is misused: see [ClientConn] and
	// [HandlerConn]. By default misuse only fails the operation.
	TB testing.TB
}
