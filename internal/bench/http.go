package bench

import (
	"context"
	"net"
	"net/http"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// HTTPSettings is what can be tuned around connect. The zero value is what
// net/http does by itself.
type HTTPSettings struct {
	Server, Client http.HTTP2Config

	// Tuned uses streamwrap's transport and settings for servers; Client and
	// ClientConn do not count then.
	Tuned bool

	// ServerConn and ClientConn, if not nil, wrap each connection.
	ServerConn, ClientConn func(net.Conn) net.Conn
}

// serveHTTP serves unencrypted HTTP/2 on loopback until stop is called.
func serveHTTP(handler http.Handler, settings HTTPSettings) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := listener.Addr().String()
	if settings.ServerConn != nil {
		listener = wrappingListener{listener, settings.ServerConn}
	}
	server := &http.Server{Handler: handler, Protocols: unencryptedHTTP2(), HTTP2: &settings.Server}
	if settings.Tuned {
		streamwrap.TuneServer(server)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// It returns when the server is closed; until then an error would show
		// in every RPC.
		_ = server.Serve(listener)
	}()
	return "http://" + address, func() {
		_ = server.Close()
		<-done
	}, nil
}

// newTransport returns a transport for unencrypted HTTP/2.
func newTransport(settings HTTPSettings) *http.Transport {
	if settings.Tuned {
		return streamwrap.NewTransport(nil)
	}
	transport := &http.Transport{Protocols: unencryptedHTTP2(), HTTP2: &settings.Client}
	if wrap := settings.ClientConn; wrap != nil {
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return wrap(conn), nil
		}
	}
	return transport
}

func unencryptedHTTP2() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

// wrappingListener wraps the connections it accepts.
type wrappingListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrappingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(conn), nil
}
