package conntest

import (
	"fmt"
	"net/http"
)

// Transport is how HTTP travels between a [Server] and its clients. The zero
// value is [H2C].
type Transport uint8

// The transports.
const (
	H2C   Transport = iota // HTTP/2 without TLS, by prior knowledge.
	H2TLS                  // HTTP/2 over TLS, by ALPN.
	H1                     // HTTP/1.1 without TLS.
	H1TLS                  // HTTP/1.1 over TLS.
)

// AllTransports returns every transport.
func AllTransports() []Transport { return []Transport{H2C, H2TLS, H1, H1TLS} }

// HTTP2 reports whether the transport speaks HTTP/2, which bidirectional
// streams need.
func (t Transport) HTTP2() bool { return t == H2C || t == H2TLS }

// TLS reports whether the transport is encrypted.
func (t Transport) TLS() bool { return t == H2TLS || t == H1TLS }

// String returns a name fit for a subtest.
func (t Transport) String() string {
	switch t {
	case H2C:
		return "h2c"
	case H2TLS:
		return "h2tls"
	case H1:
		return "h1"
	case H1TLS:
		return "h1tls"
	default:
		return fmt.Sprintf("transport(%d)", uint8(t))
	}
}

// protocols returns the one protocol that both ends are allowed to speak, so
// that a misconfigured test fails instead of falling back to HTTP/1.1.
func (t Transport) protocols() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(t == H2C)
	protocols.SetHTTP2(t == H2TLS)
	protocols.SetHTTP1(!t.HTTP2())
	return protocols
}
