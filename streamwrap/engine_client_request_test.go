package streamwrap_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineClientResponseHasTheRequest: a response belongs to the request that the Engine
// was handed, not to the copy that the transport got, which nobody needs any more.
func TestEngineClientResponseHasTheRequest(t *testing.T) {
	t.Parallel()
	for _, hooks := range []bool{false, true} { // which make copies of other requests
		conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			var responses atomic.Int32
			clients := func(s *conntest.Server) *conntest.Clients {
				e := streamwrap.NewEngine()
				inner := e.HTTPClient(s.Client())
				outer := roundTrips(func(r *http.Request) (*http.Response, error) {
					res, err := inner.Do(r)
					if err == nil && res.Request != r {
						t.Errorf("hooks %v: the response has another request", hooks)
					}
					responses.Add(1)
					return res, err
				})
				return engineWiring{conn: true, hooks: hooks}.clients(s, c, outer, e)
			}
			result := uploadTo(t, c, clients, nil, sized(1, 100)...)
			if len(result.messages) != 2 || responses.Load() != 1 {
				t.Errorf("%d messages, %d responses", len(result.messages), responses.Load())
			}
		})
	}
}
