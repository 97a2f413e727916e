package streamwrap

import (
	"net/http"
	"strings"

	"connectrpc.com/connect"
)

// protocol is what the Content-Type of a request or response says about its
// body.
type protocol uint8

const (
	notRPC       protocol = iota
	connectUnary          // the body is the message
	connectStream
	grpcProtocol
	grpcWebProtocol
)

const (
	connectStreamPrefix = "application/connect+"
	grpcWebPrefix       = "application/grpc-web"
	grpcPrefix          = "application/grpc"
	unaryPrefix         = "application/"
)

// protocolOf returns the protocol of a body with these headers.
func protocolOf(h http.Header) protocol {
	contentType := ""
	if values := h["Content-Type"]; len(values) > 0 {
		contentType = values[0]
	}
	switch contentType { // most are one of these
	case "application/proto", "application/json":
		return connectUnary
	case "application/connect+proto", "application/connect+json":
		return connectStream
	}
	p, _ := parseContentType(contentType)
	return p
}

// parseContentType returns the protocol and the codec of a Content-Type as
// connect writes it. To connect, any unary content type is "application/" and
// the codec's name.
func parseContentType(contentType string) (p protocol, codec string) {
	contentType, _, _ = strings.Cut(contentType, ";")
	contentType = strings.TrimSpace(contentType)
	for _, kind := range []struct {
		prefix   string
		protocol protocol
	}{
		{connectStreamPrefix, connectStream},
		{grpcWebPrefix, grpcWebProtocol},
		{grpcPrefix, grpcProtocol},
		{unaryPrefix, connectUnary},
	} {
		if !hasPrefixFold(contentType, kind.prefix) {
			continue
		}
		rest := contentType[len(kind.prefix):]
		if kind.protocol != grpcWebProtocol && kind.protocol != grpcProtocol {
			return kind.protocol, rest
		}
		if rest == "" {
			return kind.protocol, "proto"
		}
		if rest[0] == '+' {
			return kind.protocol, rest[1:]
		}
	}
	return notRPC, ""
}

// hasPrefixFold is strings.HasPrefix, whatever the case.
func hasPrefixFold(s, prefix string) bool {
	return strings.HasPrefix(s, prefix) ||
		len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// framed reports whether the body is a sequence of frames.
func (p protocol) framed() bool { return p >= connectStream }

// String returns connect's name of the protocol.
func (p protocol) String() string {
	switch p {
	case connectUnary, connectStream:
		return connect.ProtocolConnect
	case grpcProtocol:
		return connect.ProtocolGRPC
	case grpcWebProtocol:
		return connect.ProtocolGRPCWeb
	default:
		return ""
	}
}

// encoding returns the name of the compression of a body's messages, empty for
// none.
func (p protocol) encoding(h http.Header) string {
	key := "Content-Encoding"
	switch p {
	case connectStream:
		key = "Connect-Content-Encoding"
	case grpcProtocol, grpcWebProtocol:
		key = "Grpc-Encoding"
	}
	if name := h.Get(key); name != "identity" {
		return name
	}
	return ""
}
