package retry

import (
	"net/http"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// HTTPClient returns a client that sends requests with client, and tells interceptors
// of this package what connect hides from them: the answers of proxies, and when
// those want to be asked again (Retry-After). Without it their answers count as
// broken connections. It panics if client is nil.
func HTTPClient(client connect.HTTPClient) connect.HTTPClient {
	if client == nil {
		panic("retry: HTTPClient: nil client")
	}
	return &httpClient{client}
}

type httpClient struct{ client connect.HTTPClient }

func (c *httpClient) Do(r *http.Request) (*http.Response, error) {
	if !copies {
		r = r.Clone(r.Context()) // attempts share their headers
	}
	res, err := c.client.Do(r)
	if t, ok := r.Context().Value(tryKey{}).(*try); ok && err == nil && res.StatusCode != http.StatusOK {
		t.answer.Store(&foreign{res.Header.Get(rpcerror.RetryAfterKey)})
	}
	return res, err
}

// foreign is an answer that may not be connect's.
type foreign struct{ retryAfter string }

type tryKey struct{}
