package logging

import "connectrpc.com/connect"

// names is a scheme of names: the messages of records, and the keys in which schemes
// differ. What else there is has the same key in all of them.
type names struct {
	grpc bool // go-grpc-middleware's

	started, finished, progress, slow string // records

	code, errorText   string
	request, response string // payloads
	codes             [17]string
}

func otelNames() names {
	return names{
		started: "rpc start", finished: "rpc", progress: "rpc progress", slow: "rpc slow",
		code: "rpc.response.status_code", errorText: "error.message",
		request: "rpc.message.payload", response: "rpc.message.payload",
		codes: [17]string{
			"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
			"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
			"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
		},
	}
}

func grpcNames() names {
	return names{
		grpc:    true,
		started: "started call", finished: "finished call", progress: "call in progress", slow: "slow call",
		code: "grpc.code", errorText: "grpc.error",
		request: "grpc.request.content", response: "grpc.response.content",
		codes: [17]string{
			"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
			"PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange",
			"Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
		},
	}
}

// codeName returns the name of a code.
func (n *names) codeName(code connect.Code) string {
	if int(code) < len(n.codes) {
		return n.codes[code]
	}
	return n.codes[connect.CodeUnknown]
}

// message returns the name of a message's record.
func (n *names) message(client, sent bool) string {
	switch {
	case !n.grpc:
		return "rpc message"
	case client && sent:
		return "request sent"
	case client:
		return "response received"
	case sent:
		return "response sent"
	default:
		return "request received"
	}
}

// kindName returns the name of an RPC's kind.
func (n *names) kindName(kind connect.StreamType) string {
	name := "unary"
	switch kind {
	case connect.StreamTypeClient:
		name = "client"
	case connect.StreamTypeServer:
		name = "server"
	case connect.StreamTypeBidi:
		name = "bidi"
	}
	if n.grpc && kind != connect.StreamTypeUnary {
		name += "_stream"
	}
	return name
}

func sideName(client bool) string {
	if client {
		return "client"
	}
	return "server"
}

// systemName returns the rpc.system.name of a protocol.
func systemName(protocol string) string {
	if protocol == connect.ProtocolConnect {
		return "connectrpc"
	}
	return "grpc"
}
