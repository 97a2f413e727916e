package tracing

import (
	"strings"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
)

// The versions of the conventions that the names below are of.
const (
	schemaURL    = "https://opentelemetry.io/schemas/1.43.0"
	oldSchemaURL = "https://opentelemetry.io/schemas/1.37.0"
)

// The names of OpenTelemetry's conventions for RPCs.
const (
	systemKey        = attribute.Key("rpc.system.name")
	methodKey        = attribute.Key("rpc.method")
	originalKey      = attribute.Key("rpc.method_original")
	statusCodeKey    = attribute.Key("rpc.response.status_code") // to become "rpc.status_code"
	errorTypeKey     = attribute.Key("error.type")
	serverAddressKey = attribute.Key("server.address")
	serverPortKey    = attribute.Key("server.port")
	peerAddressKey   = attribute.Key("network.peer.address")
	peerPortKey      = attribute.Key("network.peer.port")
	directionKey     = attribute.Key("network.io.direction")
	httpStatusKey    = attribute.Key("http.response.status_code")

	requestMetadataPrefix  = "rpc.request.metadata."
	responseMetadataPrefix = "rpc.response.metadata."

	// otherMethod stands for procedures that have no series of their own.
	otherMethod = "_OTHER"

	clientDuration = "rpc.client.call.duration"
	serverDuration = "rpc.server.call.duration"
)

// The names of the conventions up to version 1.38, for those who still need them.
const (
	oldSystemKey      = attribute.Key("rpc.system")
	oldServiceKey     = attribute.Key("rpc.service")
	oldMethodKey      = attribute.Key("rpc.method")
	oldGRPCStatusKey  = attribute.Key("rpc.grpc.status_code")
	oldConnectCodeKey = attribute.Key("rpc.connect_rpc.error_code")

	oldClientDuration = "rpc.client.duration"
	oldServerDuration = "rpc.server.duration"
)

// The names of what the conventions have no name for.
const (
	protocolKey          = attribute.Key("interconnect.protocol")
	streamTypeKey        = attribute.Key("interconnect.stream_type")
	idempotencyKey       = attribute.Key("interconnect.idempotency")
	outcomeKey           = attribute.Key("interconnect.outcome")
	handlerCodeKey       = attribute.Key("interconnect.handler.status_code")
	messagesSentKey      = attribute.Key("interconnect.messages.sent")
	messagesReceivedKey  = attribute.Key("interconnect.messages.received")
	bytesSentKey         = attribute.Key("interconnect.wire_bytes.sent")
	bytesReceivedKey     = attribute.Key("interconnect.wire_bytes.received")
	firstMessageKey      = attribute.Key("interconnect.time_to_first_message")
	eventsDroppedKey     = attribute.Key("interconnect.message_events.dropped")
	eventSequenceKey     = attribute.Key("interconnect.message.sequence")
	eventSizeKey         = attribute.Key("interconnect.message.wire_size")
	eventCompressedKey   = attribute.Key("interconnect.message.compressed")
	eventGapKey          = attribute.Key("interconnect.message.gap")
	attemptPreviousKey   = attribute.Key("interconnect.attempt.previous")
	attemptTransparent   = attribute.Key("interconnect.attempt.transparent")
	attemptHedgeKey      = attribute.Key("interconnect.attempt.hedge")
	attemptDelayKey      = attribute.Key("interconnect.attempt.delay")
	refusalReasonKey     = attribute.Key("interconnect.refusal.reason")
	messageEvent         = "message"
	directionTransmit    = "transmit"
	directionReceive     = "receive"
	metricActive         = "stream.active"
	metricMessages       = "stream.messages"
	metricBytes          = "stream.io"
	metricFirstMessages  = "stream.first_messages"
	metricFirstMessage   = "stream.time_to_first_message"
	metricAbandoned      = "interconnect.client.stream.abandoned"
	metricRefused        = "interconnect.server.refused"
	clientMetricPrefix   = "interconnect.client."
	serverMetricPrefix   = "interconnect.server."
	streamDurationSuffix = "/stream"
)

// conventions is a set of generations of names.
type conventions uint8

const (
	newNames conventions = 1 << iota
	oldNames
)

// schema returns the version of the names; the newest of both generations.
func (c conventions) schema() string {
	if c == oldNames {
		return oldSchemaURL
	}
	return schemaURL
}

// optIn returns what the environment variable OTEL_SEMCONV_STABILITY_OPT_IN, a
// list, asks for.
func optIn(value string) conventions {
	asked := newNames
	for item := range strings.SplitSeq(value, ",") {
		switch strings.TrimSpace(item) {
		case "rpc/dup":
			return newNames | oldNames
		case "rpc/old":
			asked = oldNames
		}
	}
	return asked
}

// durationBuckets are the boundaries that the conventions ask for.
func durationBuckets() []float64 {
	return []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
}

// oldDurationBuckets are in milliseconds.
func oldDurationBuckets() []float64 {
	return []float64{0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000}
}

// lastCode is the last code that there is; what a peer sends may be greater.
const lastCode = connect.CodeUnauthenticated

// known returns the code, or what gRPC takes for it if it is none.
func known(code connect.Code) connect.Code {
	if code > lastCode {
		return connect.CodeUnknown
	}
	return code
}

// spell returns a code's name as gRPC spells it: "NOT_FOUND", "CANCELLED". 0 is
// "OK".
func spell(code connect.Code) string {
	switch code {
	case 0:
		return "OK"
	case connect.CodeCanceled:
		return "CANCELLED"
	default:
		return strings.ToUpper(code.String())
	}
}

// spellConnect returns a code's name as Connect spells it: "not_found",
// "canceled". Connect has none for success: it is "ok".
func spellConnect(code connect.Code) string {
	if code == 0 {
		return "ok"
	}
	return code.String()
}

// failsServer reports whether a handler's error is the server's fault.
func failsServer(code connect.Code) bool {
	switch code {
	case connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeUnimplemented,
		connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
		return true
	default:
		return false
	}
}
