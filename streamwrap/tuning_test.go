package streamwrap_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestTunedPairSpeaksHTTP2WithoutTLS is what a new user types: nothing else is
// needed for a bidi stream over a real socket.
func TestTunedPairSpeaksHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	engine := streamwrap.NewEngine()
	mux := http.NewServeMux()
	mux.Handle("/s/Echo", connect.NewBidiStreamHandler("/s/Echo", echoAll))
	server := streamwrap.TuneServer(&http.Server{Handler: engine.Handler(mux)}) //nolint:gosec // TuneServer bounds the headers
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	client := connect.NewClient[conntest.Message, conntest.Message](
		engine.HTTPClient(&http.Client{Transport: streamwrap.NewTransport(nil)}),
		"http://"+listener.Addr().String()+"/s/Echo",
		connect.WithInterceptors(engine),
	)
	stream := client.CallBidiStream(t.Context())
	for _, text := range []string{"one", "two", strings.Repeat("three", 100_000)} {
		if err := stream.Send(conntest.Text(text)); err != nil {
			t.Fatal(err)
		}
		msg, err := stream.Receive()
		if err != nil || string(msg.GetValue()) != text {
			t.Fatalf("Receive: %d bytes, %v", len(msg.GetValue()), err)
		}
	}
	if err := stream.CloseRequest(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Receive(); err == nil {
		t.Error("no end")
	}
	_ = stream.CloseResponse()
	if got := server.HTTP2.MaxReadFrameSize; got != 256<<10 {
		t.Errorf("the server accepts frames of %d bytes", got)
	}
}

// TestTuningKeepsWhatIsSet: the helpers fill gaps and overrule nobody.
func TestTuningKeepsWhatIsSet(t *testing.T) {
	t.Parallel()
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	server := &http.Server{
		Protocols:         only1,
		ReadHeaderTimeout: time.Minute,
		WriteTimeout:      time.Hour,
		HTTP2:             &http.HTTP2Config{MaxReadFrameSize: 1 << 14, SendPingTimeout: time.Hour},
	}
	if got := streamwrap.TuneServer(server); got != server {
		t.Error("another server")
	}
	if server.Protocols.HTTP2() || server.ReadHeaderTimeout != time.Minute || server.WriteTimeout != time.Hour ||
		server.HTTP2.MaxReadFrameSize != 1<<14 || server.HTTP2.SendPingTimeout != time.Hour {
		t.Errorf("overruled: %+v, %+v", server, server.HTTP2)
	}
	if server.HTTP2.PingTimeout == 0 {
		t.Error("a gap stays")
	}

	config := &tls.Config{ServerName: "a", MinVersion: tls.VersionTLS13}
	transport := streamwrap.NewTransport(config)
	if transport.TLSClientConfig == config || transport.TLSClientConfig.ServerName != "a" {
		t.Error("the TLS config is cloned")
	}
	if p := transport.Protocols; !p.HTTP1() || !p.HTTP2() || p.UnencryptedHTTP2() {
		t.Errorf("with TLS: %v", p)
	}
	if p := streamwrap.NewTransport(nil).Protocols; p.HTTP1() || !p.UnencryptedHTTP2() {
		t.Errorf("without TLS: %v", p) // HTTP/1 would win for http:// URLs
	}
	if transport.Proxy == nil || transport.DialContext == nil {
		t.Error("the rest is http.DefaultTransport's")
	}
}

// TestCompressionFromAThreshold: messages below it travel as they are, those
// above compressed, in both directions, with and without an Engine.
func TestCompressionFromAThreshold(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		engine := streamwrap.NewEngine(streamwrap.EngineCompression(100))
		sizes := map[int]bool{} // compressed, by the size of the text
		watch := streamwrap.Hooks[life]{Sent: func(_ *life, _ context.Context, m *streamwrap.Message) {
			if m.Err == nil && m.WireBytes >= 0 {
				sizes[len(m.Msg.(*conntest.Message).GetValue())] = m.Compressed
			}
		}}
		r := newRig(t, c, setup{
			server: watch,
			config: conntest.Config{
				Wrap:           engine.Handler,
				HandlerOptions: []connect.HandlerOption{streamwrap.HandlerCompression(100)},
			},
		})
		r.clients = conntest.NewClients(engine.HTTPClient(r.Client()), r.URL, c.Option(),
			streamwrap.ClientCompression(100), connect.WithInterceptors(r.client, engine))
		if reply := r.do(t, nil, "short", strings.Repeat("long", 100)); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if len(sizes) != 2 || sizes[5] || !sizes[400] {
			t.Errorf("the handler compressed %v", sizes)
		}
		call, _ := r.client.Life(t).call.Exchange()
		if sent := call.Sent(); sent.Frames != 2 || sent.Compressed != 1 {
			t.Errorf("the client sent %+v", sent)
		}
	})
}

func echoAll(_ context.Context, stream *bidiStream) error {
	for {
		msg, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = stream.Send(msg)
		}
		if err != nil {
			return err
		}
	}
}
