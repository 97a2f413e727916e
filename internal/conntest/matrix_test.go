package conntest_test

import (
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

func TestMatrixCases(t *testing.T) {
	t.Parallel()
	cases := conntest.Matrix{}.Cases()
	// Two transports of HTTP/2 with four kinds and two of HTTP/1.1 with three.
	if want := 3 * (2*4 + 2*3); len(cases) != want {
		t.Errorf("%d cases, want %d", len(cases), want)
	}
	for _, c := range cases {
		if c.Kind == connect.StreamTypeBidi && !c.Transport.HTTP2() || c.Codec != conntest.Proto {
			t.Errorf("case %v", c)
		}
	}
	restricted := conntest.Matrix{
		Transports: []conntest.Transport{conntest.H1, conntest.H2TLS},
		Protocols:  []conntest.Protocol{conntest.GRPCWeb},
		Codecs:     []conntest.Codec{conntest.JSON},
		Kinds:      []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi},
	}
	var names []string
	restricted.Each(t, func(t *testing.T, c conntest.Case) {
		names = append(names, c.String())
		if !slices.Contains(conntest.AllTransports(), c.Transport) || t.Name() != "TestMatrixCases/"+c.String() {
			t.Errorf("case %v in %s", c, t.Name())
		}
	})
	want := []string{"h1/grpcweb/json/server", "h2tls/grpcweb/json/server", "h2tls/grpcweb/json/bidi"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("cases (-want +got):\n%s", diff)
	}
}

func TestEachBubbleRunsInBubbles(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, _ conntest.Case) {
		time.Sleep(time.Hour)
		if got := time.Now().UTC().Format(time.DateTime); got != "2000-01-01 01:00:00" {
			t.Errorf("it is %s", got)
		}
	})
}
