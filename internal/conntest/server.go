package conntest

import (
	"context"
	"errors"
	"log" //nolint:depguard // what http.Server.ErrorLog takes
	"net"
	"net/http"
	"sync"
	"testing"

	"connectrpc.com/connect"
)

// compressMinBytes is the size from which servers compress what they send. gzip for
// short messages costs more than all the rest of most tests, under the race detector
// above all: there a [sync.Pool] drops a part of what it is given, and each new
// gzip.Writer clears a MiB.
const compressMinBytes = 1 << 10

// Server is an HTTP server with the echo service on an in-memory network. Its
// methods are safe for concurrent use.
type Server struct {
	// URL is the base URL, without a trailing slash.
	URL string

	// HTTP is the running server, for Shutdown and the like. Settings are
	// changed with [Config.TuneServer] instead.
	HTTP *http.Server

	tb      testing.TB
	config  Config
	network *network
	journal *journal
	echo    *echo
	log     *logWriter
	served  chan struct{}   // Serve returned
	life    context.Context //nolint:containedctx // the server's; handlers' contexts are from it
	end     context.CancelFunc
	client  *http.Client

	mu      sync.Mutex
	clients []*http.Client
}

// Start starts a server which ends, with everything it started, in a Cleanup of
// tb. In a synctest bubble, call it inside the bubble.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := &Server{
		URL:     "http://" + host,
		tb:      tb,
		config:  config,
		network: newNetwork(config.socketBuffer()),
		journal: &journal{discard: config.Unobserved},
		echo:    &echo{released: make(chan struct{})},
		log:     &logWriter{tb: tb},
		served:  make(chan struct{}),
	}
	if config.Transport.TLS() {
		s.URL = "https://" + host
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.client = s.NewClient()
	s.HTTP = &http.Server{
		Handler:     s.handler(),
		Protocols:   config.Transport.protocols(),
		HTTP2:       config.http2(ServerSide),
		ErrorLog:    log.New(s.log, "", 0),
		BaseContext: func(net.Listener) context.Context { return s.life },
	}
	if config.Transport.TLS() {
		s.HTTP.TLSConfig = serverTLS()
	}
	if config.TuneServer != nil {
		config.TuneServer(s.HTTP)
	}
	tb.Cleanup(s.stop)
	go s.serve()
	return s
}

// Clients returns RPC clients for the echo service on [Server.Client].
func (s *Server) Clients(opts ...connect.ClientOption) *Clients {
	return NewClients(s.client, s.URL, opts...)
}

// Inject queues faults for the calls to come, one each, whoever makes them: the
// first call that reaches a handler of the echo service gets the first fault.
// The zero Fault is a healthy call.
func (s *Server) Inject(faults ...Fault) { s.echo.inject(faults) }

// Release lets handlers go on that [IgnoreContext] holds, now and in future.
func (s *Server) Release() { s.echo.release() }

// handler puts the mux together: the journal outermost, where it sees what
// net/http gave, then the test's own middleware.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	opts := append([]connect.HandlerOption{connect.WithCompressMinBytes(compressMinBytes)}, s.config.HandlerOptions...)
	if !s.config.Unobserved {
		opts = append(opts, connect.WithInterceptors(observer{}))
	}
	s.config.Service.withDefaults(s.echo).register(mux, opts...)
	if s.config.Register != nil {
		s.config.Register(mux, opts...)
	}
	var handler http.Handler = mux
	if s.config.Wrap != nil {
		handler = s.config.Wrap(handler)
	}
	return s.journal.observe(handler)
}

func (s *Server) serve() {
	defer close(s.served)
	var err error
	if s.config.Transport.TLS() {
		err = s.HTTP.ServeTLS(s.network, "", "")
	} else {
		err = s.HTTP.Serve(s.network)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		s.tb.Errorf("conntest: server stopped: %v", err)
	}
}
