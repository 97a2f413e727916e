package streamwraptest

import (
	"errors"
	"strings"
)

// Operation is a call of one of a scripted conn's methods.
type Operation struct {
	// Method is the method's name: "Send", "Receive", "CloseRequest",
	// "CloseResponse", "ResponseHeader" or "ResponseTrailer". The methods that
	// only look something up, Spec, Peer and RequestHeader, are not recorded,
	// nor are ResponseHeader and ResponseTrailer on handlers.
	Method string

	// Msg is a copy of the message that was sent or received: nil for a Send
	// of nil, for a Receive without a message, and for other methods.
	Msg any

	// Err is what the operation returned.
	Err error

	// Done reports whether it has returned.
	Done bool

	// Early reports that it was called before the response had begun, so that
	// it had to wait: on clients only, for CloseResponse, ResponseHeader and
	// ResponseTrailer, which a real conn blocks in then.
	Early bool
}

// String returns the operation in short: "Send", "Send(nil)", "Receive=EOF",
// "Receive=error", "CloseRequest", with "..." at the end while it is under way.
func (o Operation) String() string {
	s := o.Method
	if o.Method == methodSend && o.Msg == nil {
		s += "(nil)"
	}
	switch {
	case !o.Done:
		s += "..."
	case o.Err != nil && isEOF(o.Err):
		s += "=EOF"
	case o.Err != nil:
		s += "=error"
	}
	return s
}

const (
	methodSend            = "Send"
	methodReceive         = "Receive"
	methodCloseRequest    = "CloseRequest"
	methodCloseResponse   = "CloseResponse"
	methodResponseHeader  = "ResponseHeader"
	methodResponseTrailer = "ResponseTrailer"
)

// formatOperations joins operations in short form.
func formatOperations(ops []Operation) string {
	words := make([]string, len(ops))
	for i, op := range ops {
		words[i] = op.String()
	}
	return strings.Join(words, " ")
}

var (
	errConcurrentSend    = errors.New("two concurrent calls of Send")
	errConcurrentReceive = errors.New("two concurrent calls of Receive")
	errReopened          = errors.New("conn opened twice: make one for each stream")
	errReturned          = errors.New("conn used after its handler returned")
)
