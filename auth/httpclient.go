package auth

import (
	"errors"
	"net/http"
	"net/netip"

	"connectrpc.com/connect"
)

var errPlaintext = errors.New("credentials are not sent without TLS")

// HTTPClient returns a client that sends requests with client, but refuses those with
// an Authorization header that would travel without TLS, except to this machine
// itself: with [connect.CodeUnauthenticated], and without a connection. Interceptors
// cannot do that, they do not know the scheme. It panics if client is nil.
func HTTPClient(client connect.HTTPClient) connect.HTTPClient {
	if client == nil {
		panic("auth: HTTPClient: nil client")
	}
	return &httpClient{client}
}

type httpClient struct{ client connect.HTTPClient }

func (c *httpClient) Do(r *http.Request) (*http.Response, error) {
	if len(r.Header[authorization]) > 0 && r.URL.Scheme != "https" && !isLoopback(r.URL.Hostname()) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, connect.NewError(connect.CodeUnauthenticated, errPlaintext)
	}
	return c.client.Do(r)
}

// isLoopback reports whether a host is this machine, whatever DNS says.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
