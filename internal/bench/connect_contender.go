package bench

import (
	"net/http"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// ConnectSettings is how a contender uses connect.
type ConnectSettings struct {
	HTTP HTTPSettings

	// GRPC uses the gRPC protocol instead of Connect's.
	GRPC bool

	// Gzip compresses in both directions. Without it nothing is compressed,
	// which is not connect's default: connect's clients always accept gzip, and
	// its handlers then compress every message, however small.
	Gzip bool

	// GzipFrom, if not 0, compresses with streamwrap's settings instead:
	// messages of at least so many bytes, fast.
	GzipFrom int

	// Engine puts the engine around both sides.
	Engine bool

	// Interceptors are outside of the engine, on both sides.
	Interceptors []connect.Interceptor

	// Handler and Client are more options of either side, and Around is what stands
	// around the handlers, inside of the engine.
	Handler []connect.HandlerOption
	Client  []connect.ClientOption
	Around  func(http.Handler) http.Handler
}

// Connect returns connect-go as a contender, with the engine or without.
func Connect(name string, settings ConnectSettings) Contender {
	return Contender{Name: name, Start: func() (Client, func(), error) {
		var (
			handlerOptions []connect.HandlerOption
			clientOptions  []connect.ClientOption
			engineOptions  []streamwrap.EngineOption
		)
		if settings.GRPC {
			clientOptions = append(clientOptions, connect.WithGRPC())
		}
		switch {
		case settings.GzipFrom > 0:
			handlerOptions = append(handlerOptions, streamwrap.HandlerCompression(settings.GzipFrom))
			clientOptions = append(clientOptions, streamwrap.ClientCompression(settings.GzipFrom))
			engineOptions = append(engineOptions, streamwrap.EngineCompression(settings.GzipFrom))
		case settings.Gzip:
			clientOptions = append(clientOptions, connect.WithSendGzip())
		default:
			clientOptions = append(clientOptions, connect.WithAcceptCompression("gzip", nil, nil))
		}
		if len(settings.Interceptors) > 0 {
			handlerOptions = append(handlerOptions, connect.WithInterceptors(settings.Interceptors...))
			clientOptions = append(clientOptions, connect.WithInterceptors(settings.Interceptors...))
		}

		handlerOptions = append(handlerOptions, settings.Handler...)
		clientOptions = append(clientOptions, settings.Client...)

		wrapHandler := func(h http.Handler) http.Handler { return h }
		wrapClient := func(c connect.HTTPClient) connect.HTTPClient { return c }
		if settings.Engine {
			engine := newEngine(engineOptions...)
			wrapHandler, wrapClient = engine.Handler, engine.HTTPClient
			// Options add up, and the last interceptor is the innermost one.
			clientOptions = append(clientOptions, connect.WithInterceptors(engine))
		}

		handler := newConnectHandler(service{}, handlerOptions...)
		if settings.Around != nil {
			handler = settings.Around(handler)
		}
		url, stopServer, err := serveHTTP(wrapHandler(handler), settings.HTTP)
		if err != nil {
			return nil, nil, err
		}
		transport := newTransport(settings.HTTP)
		client := newConnectClient(wrapClient(&http.Client{Transport: transport}), url, clientOptions...)
		return client, func() {
			transport.CloseIdleConnections()
			stopServer()
		}, nil
	}}
}
