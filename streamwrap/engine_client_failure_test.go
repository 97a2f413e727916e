package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// answer is middleware that answers instead of the RPC's handler and then holds
// the request, without reading it.
func answer(status int, header http.Header) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for key, values := range header {
				w.Header()[key] = values
			}
			w.WriteHeader(status)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
	}
}

// TestEngineClientWhenConnectGivesUp: connect does not take every response. Then
// it ends the request, and a client that keeps sending must get EOF, as without
// the Engine, though the server has not ended anything.
func TestEngineClientWhenConnectGivesUp(t *testing.T) {
	t.Parallel()
	contentTypes := map[conntest.Protocol]string{
		conntest.Connect: "application/connect+proto", conntest.GRPC: "application/grpc", conntest.GRPCWeb: "application/grpc-web+proto",
	}
	for _, tt := range []struct {
		name   string
		h1     bool
		status int
		header func(c conntest.Case) http.Header
	}{
		{"wrong content type", false, 200, func(conntest.Case) http.Header {
			return http.Header{"Content-Type": {"text/html"}}
		}},
		{"status", false, 404, func(conntest.Case) http.Header { return nil }},
		{"unknown compression", false, 200, func(c conntest.Case) http.Header {
			return http.Header{
				"Content-Type":             {contentTypes[c.Protocol]},
				"Connect-Content-Encoding": {"mystery"},
				"Grpc-Encoding":            {"mystery"},
			}
		}},
		{"old HTTP", true, 200, func(c conntest.Case) http.Header {
			return http.Header{"Content-Type": {contentTypes[c.Protocol]}}
		}},
	} {
		for _, first := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, first), func(t *testing.T) {
				t.Parallel()
				for _, p := range conntest.AllProtocols() {
					for _, kind := range uploads {
						c := conntest.Case{Transport: conntest.H2C, Protocol: p, Kind: kind}
						if tt.h1 {
							c.Transport, c.Kind = conntest.H1, connect.StreamTypeBidi
						}
						t.Run(c.String(), func(t *testing.T) {
							t.Parallel()
							synctest.Test(t, func(t *testing.T) {
								t.Cleanup(settle)
								var bareErr error
								for _, w := range append([]engineWiring{{name: "bare"}}, engineWirings...) {
									srv := c.Start(t, conntest.Config{Wrap: answer(tt.status, tt.header(c))})
									conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
									sent := make(chan error, 1)
									go func() {
										size := first
										for {
											if err := conn.Send(conntest.Text(strings.Repeat("x", size))); err != nil {
												sent <- err
												return
											}
											size = 1 << 10
											time.Sleep(time.Millisecond)
										}
									}()
									time.Sleep(time.Minute)
									select {
									case err := <-sent:
										wantEOF(t, w.name+": Send", err)
									default:
										t.Errorf("%s: Send blocks", w.name)
									}
									err := conn.Receive(&conntest.Message{})
									if w.name == "bare" {
										bareErr = err
									} else if err == nil || err.Error() != bareErr.Error() {
										t.Errorf("%s: Receive: %v, without the Engine %v", w.name, err, bareErr)
									}
									wantEOF(t, w.name+": Send", conn.Send(conntest.Text("late")))
									_ = conn.CloseRequest()
									_ = conn.CloseResponse()
								}
							})
						})
						if tt.h1 {
							break
						}
					}
				}
			})
		}
	}
}

// garbageCodec sends what nobody can unmarshal.
type garbageCodec struct{ upperCodec }

func (c garbageCodec) Name() string { return "proto" }

func (c garbageCodec) Marshal(any) ([]byte, error) { return []byte{0xff, 0xff, 0xff}, nil }

func (c garbageCodec) Unmarshal([]byte, any) error { return nil }

// refusingCodec takes no message, and its error takes time to be understood:
// time in which the transport finds that connect has ended the request.
type refusingCodec struct{}

type slowError struct{}

func (refusingCodec) Name() string { return "proto" }

func (refusingCodec) Marshal(msg any) ([]byte, error) { return proto.Marshal(msg.(proto.Message)) }

func (refusingCodec) Unmarshal([]byte, any) error { return slowError{} }

func (slowError) Error() string { return "refused" }

func (slowError) Is(error) bool {
	time.Sleep(time.Millisecond)
	return false
}

// TestEngineClientReceiveFailsLocally: a response that this side cannot take ends
// the request with an error, however it began. A server that commits what it has
// when the request is complete must not.
func TestEngineClientReceiveFailsLocally(t *testing.T) {
	t.Parallel()
	// The service sends at once, and then takes the rest of the request.
	respond := func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if err := conn.Send(conntest.Text(strings.Repeat("x", 100))); err != nil {
			return err
		}
		_, err := drain(conn)
		return err
	}
	service := conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, respond(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return respond(ctx, stream.Conn()) },
	}
	for _, tt := range []struct {
		name   string
		client []connect.ClientOption
		server []connect.HandlerOption
		code   connect.Code
	}{
		{"too large", []connect.ClientOption{connect.WithReadMaxBytes(50)}, nil, connect.CodeResourceExhausted},
		{"malformed", nil, []connect.HandlerOption{connect.WithCodec(garbageCodec{newUpperCodec("")})}, connect.CodeInvalidArgument},
		{"refused by a codec", []connect.ClientOption{connect.WithCodec(refusingCodec{})}, nil, connect.CodeInvalidArgument},
	} {
		for _, b := range beginnings {
			t.Run(tt.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineConns, func(t *testing.T, c conntest.Case, w engineWiring) {
					srv := c.Start(t, conntest.Config{
						Service: service, HandlerOptions: append([]connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}, tt.server...),
					})
					clients := w.clients(srv, c, srv.Client(), streamwrap.NewEngine(), tt.client...)
					for i := range 3 { // connect ends the request by itself, and that must be too late
						conn := clients.Upload(t.Context(), c.Kind)
						begin(t, conn, b.messages)
						wantCode(t, "Receive", conn.Receive(&conntest.Message{}), tt.code)
						wantEOF(t, "Send", conn.Send(conntest.Text("late")))
						_ = conn.CloseRequest()
						_ = conn.CloseResponse()
						wantCanceledUpload(t, srv.WaitCalls(i + 1)[i])
					}
				})
			})
		}
	}
}

// TestEngineClientServerErrorMidUpload: the client learns the server's error,
// with everything in it, and no Send gets it instead.
func TestEngineClientServerErrorMidUpload(t *testing.T) {
	t.Parallel()
	eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		srv := c.Start(t, conntest.Config{})
		conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
		conntest.Fail(connect.CodeDataLoss, "why").After(5).Add(conn.RequestHeader())
		received := make(chan error, 1)
		go func() {
			_, err := drain(conn)
			received <- err
		}()
		var sendErr error
		for n := 0; sendErr == nil; n++ {
			sendErr = conn.Send(conntest.Text(strings.Repeat("x", n%5<<10)))
		}
		wantEOF(t, "Send", sendErr)
		err := <-received
		wantCode(t, "Receive", err, connect.CodeDataLoss)
		if e, ok := errors.AsType[*connect.Error](err); !ok || !connect.IsWireError(err) || e.Message() != "why" ||
			len(e.Details()) != 1 || e.Meta().Get(conntest.ErrorHeader) != "data_loss" {
			t.Errorf("Receive: %v", err)
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		if call := srv.WaitCalls(1)[0]; call.Received != 5 {
			t.Errorf("the server got %d messages", call.Received)
		}
	})
}
