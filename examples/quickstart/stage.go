package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/logging"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// protocol is what a client option chooses. The server speaks all of them on the
// same port.
type protocol struct {
	name   string
	option connect.ClientOption
}

func protocols() []protocol {
	return []protocol{
		{"Connect", connect.WithClientOptions()},
		{"gRPC", connect.WithGRPC()},
		{"gRPC-Web", connect.WithGRPCWeb()},
	}
}

// stage is where scenes are played: a server, and what its clients need.
type stage struct {
	url        string
	httpClient *http.Client
	telemetry  *telemetry
	issuer     *issuer
}

// result is how a scene came out over one protocol.
type result struct {
	outcome

	took time.Duration
}

// playAll plays a scene over all protocols at the same time.
func (s *stage) playAll(ctx context.Context, sc scene) []result {
	results := make([]result, len(protocols()))
	var wait sync.WaitGroup
	for i, p := range protocols() {
		wait.Go(func() { results[i] = s.play(ctx, sc, p) })
	}
	wait.Wait()
	return results
}

// play plays a scene over one protocol.
func (s *stage) play(ctx context.Context, sc scene, p protocol) result {
	client, err := s.client(sc, p)
	if err != nil {
		return result{outcome: outcome{caller: err.Error()}}
	}
	// All that happens because of the scene is in its trace, on both sides.
	ctx, span := s.telemetry.tracer.Start(ctx, sc.name)
	defer span.End()
	start := time.Now()
	r := result{outcome: outcome{caller: sc.play(ctx, client)}}
	r.took = time.Since(start)
	// The records may come after all that the caller waits for.
	trace := span.SpanContext().TraceID().String()
	eventually(ctx, func() bool {
		r.client, r.server = s.telemetry.journal.told(onClient, trace), s.telemetry.journal.told(onServer, trace)
		return sc.want.matches(r.outcome) || r.caller != sc.want.caller
	})
	return r
}

// eventually waits until something is true, and not for ever.
func eventually(ctx context.Context, is func() bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() && ctx.Err() == nil {
		<-tick.C
	}
}

// client returns the client of a caller whom only this scene has.
func (s *stage) client(sc scene, p protocol) (greetv1connect.GreetServiceClient, error) {
	if sc.alien {
		return greetv1connect.NewGreetServiceClient(s.httpClient, s.url, p.option,
			connect.WithInterceptors(s.telemetry.interceptor, logging.NewInterceptor(s.telemetry.logger))), nil
	}
	life := sc.life
	if life == 0 {
		life = time.Hour
	}
	token, err := s.issuer.token(sc.name+" over "+p.name, sc.scope, life)
	if err != nil {
		return nil, err
	}
	return newClient(s.url, s.telemetry.interceptor, s.telemetry.logger, token, s.httpClient, p.option), nil
}
