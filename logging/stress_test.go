package logging_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestStress: many RPCs at once, of all kinds, that succeed, fail, panic and are canceled
// at any moment, with everything logged: each has one record on each side, and so has
// each request.
func TestStress(t *testing.T) {
	t.Parallel()
	const workers, each = 8, 40
	for _, protocol := range conntest.AllProtocols() {
		t.Run(protocol.String(), func(t *testing.T) {
			t.Parallel()
			var client, server journal
			opts := append(everything(), logging.WithSlow(time.Millisecond, "/conntest.v1.Echo/"), logging.WithProgress(time.Millisecond))
			logger := server.logger(slog.LevelDebug)
			i := logging.NewInterceptor(logger, opts...)
			engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
			srv := conntest.Start(t, conntest.Config{
				HandlerOptions: []connect.HandlerOption{i.HandlerOption()}, Wrap: engine.Handler, TuneServer: quiet,
			})
			clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, protocol.Option(),
				connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug), opts...), engine))
			var running sync.WaitGroup
			for range workers {
				running.Go(func() {
					for range each {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(20))*time.Millisecond)
						clients.Do(ctx, connect.StreamType(rand.IntN(4)), trouble(), "one", "two", "three")
						cancel()
					}
				})
			}
			running.Wait()
			for limit := time.After(10 * time.Second); ; {
				requests, records := srv.Requests(), len(server.records(t, "rpc"))
				own := len(client.records(t, "rpc"))
				if requests == records && own == workers*each {
					return
				}
				select {
				case <-limit:
					t.Fatalf("%d records of %d requests, %d of %d RPCs", records, requests, own, workers*each)
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
}

// trouble returns headers that ask for something.
func trouble() http.Header {
	after := rand.IntN(4)
	switch rand.IntN(6) {
	case 0:
		return conntest.WithFaults(conntest.Fail(connect.CodeInternal, "boom").After(after))
	case 1:
		return conntest.WithFaults(conntest.Panic("boom").After(after))
	case 2:
		return conntest.WithFaults(conntest.Block().After(after))
	case 3:
		return conntest.WithFaults(conntest.Delay(time.Duration(rand.IntN(5)) * time.Millisecond).After(after))
	default:
		return nil
	}
}
