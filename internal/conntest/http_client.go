package conntest

import (
	"context"
	"net/http"
)

// Client returns the server's HTTP client, always the same.
func (s *Server) Client() *http.Client { return s.client }

// NewClient returns a new HTTP client with connections of its own. Its Transport
// is an *http.Transport for HTTP/2, and embeds one for HTTP/1.1.
func (s *Server) NewClient() *http.Client {
	transport := &http.Transport{
		DialContext: s.network.dial,
		Protocols:   s.config.Transport.protocols(),
		HTTP2:       s.config.http2(ClientSide),
	}
	if s.config.Transport.TLS() {
		transport.TLSClientConfig = clientTLS()
	}
	if s.config.TuneClient != nil {
		s.config.TuneClient(transport)
	}
	client := &http.Client{Transport: transport}
	if !s.config.Transport.HTTP2() {
		client.Transport = &http1Transport{Transport: transport, life: s.life}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, client)
	return client
}

// http1Transport ends requests when the server ends. An HTTP/1.1 transport does
// not do so by itself when it loses the connection: it waits for a read from
// the request's body to return, and for somebody to read the response's.
type http1Transport struct {
	*http.Transport
	life context.Context //nolint:containedctx // of the server, with which its clients end
}

func (t *http1Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	context.AfterFunc(t.life, func() {
		cancel()
		if req.Body != nil {
			_ = req.Body.Close()
		}
	})
	res, err := t.Transport.RoundTrip(req.WithContext(ctx))
	if res != nil {
		res.Request = req
	}
	return res, err
}
