package retry

import "connectrpc.com/connect"

// operation is something that a stream's user did with the sending side, to be done
// again with each attempt.
type operation struct {
	kind operationKind
	msg  any // what to send: a copy if it is kept, or else the user's own
	size int64
	kept bool
}

type operationKind uint8

const (
	sendMessage operationKind = iota
	sendHeaders               // Send(nil)
	closeRequest
)

// do does the operation with an attempt's conn.
func (o operation) do(conn connect.StreamingClientConn, msg any) error {
	switch o.kind {
	case sendHeaders:
		return conn.Send(nil)
	case closeRequest:
		return conn.CloseRequest()
	default:
		return conn.Send(msg)
	}
}
