package auth

import (
	"errors"
	"net/http"
	"net/netip"

	"connectrpc.com/connect"
)

var (
	errPlaintext = errors.New("credentials are not sent without TLS")
	errRedirects = errors.New("stopped after 10 redirects")
)

// HTTPClient returns a client that sends requests with client, but refuses those with
// an Authorization header, or a password in their URL, that would travel without TLS,
// except to this machine itself: with [connect.CodeUnauthenticated], and without a
// connection. Interceptors cannot do that, they do not know the scheme. Redirections
// count too, if client is an *[http.Client]: those of what is wrapped around one are not
// seen, so this belongs next to it. It panics if client is nil.
func HTTPClient(client connect.HTTPClient) connect.HTTPClient {
	if client == nil {
		panic("auth: HTTPClient: nil client")
	}
	if own, ok := client.(*http.Client); ok { // which follows redirections by itself
		copied := *own
		copied.CheckRedirect = func(r *http.Request, via []*http.Request) error {
			switch {
			case isPlaintext(r):
				return connect.NewError(connect.CodeUnauthenticated, errPlaintext)
			case own.CheckRedirect != nil:
				return own.CheckRedirect(r, via)
			case len(via) >= 10:
				return errRedirects // as net/http has it
			}
			return nil
		}
		client = &copied
	}
	return &httpClient{client}
}

// isPlaintext reports whether a request would show its token to others.
func isPlaintext(r *http.Request) bool {
	credentials := len(r.Header[authorization]) > 0 || r.URL.User != nil // net/http makes a header of that
	return credentials && r.URL.Scheme != "https" && !isLoopback(r.URL.Hostname())
}

type httpClient struct{ client connect.HTTPClient }

func (c *httpClient) Do(r *http.Request) (*http.Response, error) {
	if isPlaintext(r) {
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
