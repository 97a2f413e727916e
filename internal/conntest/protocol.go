package conntest

import (
	"fmt"

	"connectrpc.com/connect"
)

// Protocol is an RPC protocol that connect speaks. The zero value is [Connect].
type Protocol uint8

// The protocols.
const (
	Connect Protocol = iota
	GRPC
	GRPCWeb
)

// AllProtocols returns every protocol.
func AllProtocols() []Protocol { return []Protocol{Connect, GRPC, GRPCWeb} }

// Option makes a client speak the protocol.
func (p Protocol) Option() connect.ClientOption {
	switch p {
	case GRPC:
		return connect.WithGRPC()
	case GRPCWeb:
		return connect.WithGRPCWeb()
	default:
		return connect.WithClientOptions()
	}
}

// String returns a name fit for a subtest.
func (p Protocol) String() string {
	switch p {
	case Connect:
		return "connect"
	case GRPC:
		return "grpc"
	case GRPCWeb:
		return "grpcweb"
	default:
		return fmt.Sprintf("protocol(%d)", uint8(p))
	}
}

// Codec is how messages are encoded. The zero value is [Proto].
type Codec uint8

// The codecs.
const (
	Proto Codec = iota
	JSON
)

// AllCodecs returns every codec.
func AllCodecs() []Codec { return []Codec{Proto, JSON} }

// Option makes a client use the codec.
func (c Codec) Option() connect.ClientOption {
	if c == JSON {
		return connect.WithProtoJSON()
	}
	return connect.WithClientOptions()
}

// String returns a name fit for a subtest.
func (c Codec) String() string {
	switch c {
	case Proto:
		return "proto"
	case JSON:
		return "json"
	default:
		return fmt.Sprintf("codec(%d)", uint8(c))
	}
}
