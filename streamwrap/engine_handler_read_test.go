package streamwrap_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineReadsWhatIsThere: a message is handed out as soon as it is complete,
// however much more the buffer could take.
func TestEngineReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	for _, transport := range web {
		for _, p := range conntest.AllProtocols() {
			t.Run(transport.String()+"/"+p.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					got := make(chan string, 10)
					config := behindEngine(uploading(func(_ context.Context, conn connect.StreamingHandlerConn) error {
						for {
							var msg conntest.Message
							if err := conn.Receive(&msg); err != nil {
								close(got)
								return err
							}
							got <- string(msg.GetValue())
						}
					}))
					config.Transport = transport
					srv := conntest.Start(t, config)
					body, w := io.Pipe()
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.ClientProcedure, body)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", protocolType(p))
					go func() {
						if res, err := srv.Client().Do(req); err == nil {
							_ = res.Body.Close()
						}
					}()
					for i, size := range []int{0, 1, 500, 507, 508, 512, 600, 4 << 10, 32 << 10, 100_000, 3} {
						text := strings.Repeat(string(rune('a'+i)), size)
						whole := envelope(textPayload(text))
						for _, cut := range []int{0, 1, 5, 6, len(whole) / 2, len(whole) - 1} {
							if cut >= len(whole) {
								continue
							}
							_, _ = io.WriteString(w, whole[:cut])
							time.Sleep(time.Second)
							if len(got) != 0 {
								t.Fatalf("%d bytes: received after %d", len(whole), cut)
							}
							_, _ = io.WriteString(w, whole[cut:])
							synctest.Wait()
							select {
							case message := <-got:
								if message != text {
									t.Fatalf("%d bytes: received %d", len(text), len(message))
								}
							default:
								t.Fatalf("%d bytes, split at %d: not received", len(whole), cut)
							}
						}
					}
					// Many at once, and half of one more.
					whole := envelope(textPayload("joined"))
					_, _ = io.WriteString(w, strings.Repeat(whole, 9)+whole[:8])
					synctest.Wait()
					if len(got) != 9 {
						t.Errorf("%d of 9 messages", len(got))
					}
					for range 9 {
						<-got
					}
					_, _ = io.WriteString(w, whole[8:])
					if message := <-got; message != "joined" {
						t.Errorf("then %q", message)
					}
					_ = w.Close()
					if _, more := <-got; more {
						t.Error("a message too many")
					}
				})
			})
		}
	}
}

// pieces is a body that gives what is left of its pieces, one by one, and then
// an error.
type pieces struct {
	parts []string
	err   error
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.parts) > 0 && p.parts[0] == "" {
		p.parts = p.parts[1:]
	}
	if len(p.parts) == 0 {
		return 0, p.err
	}
	n := copy(b, p.parts[0])
	p.parts[0] = p.parts[0][n:]
	return n, nil
}

// received serves a request with a client stream and returns what the handler
// got: its messages, and the error. It receives once more after that.
func received(p conntest.Protocol, body io.Reader, wrap func(http.Handler) http.Handler, opts ...connect.HandlerOption) string {
	var got strings.Builder
	handler := connect.NewClientStreamHandler(conntest.ClientProcedure,
		func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			for range 2 {
				for {
					var msg conntest.Message
					if err := stream.Conn().Receive(&msg); err != nil {
						fmt.Fprintf(&got, "%v (%v)", err, connect.CodeOf(err))
						break
					}
					fmt.Fprintf(&got, "%x\n", msg.GetValue())
				}
			}
			return connect.NewResponse(conntest.Text("")), nil
		}, opts...)
	w := &recorder{header: make(http.Header)}
	wrap(handler).ServeHTTP(w, streamRequest(p, conntest.ClientProcedure, io.NopCloser(body)))
	return got.String()
}

func bareHandler(next http.Handler) http.Handler { return next }

// messagesOf returns a body with messages of the given sizes.
func messagesOf(sizes ...int) string {
	var b strings.Builder
	for i, size := range sizes {
		b.WriteString(envelope(textPayload(strings.Repeat(string(rune('a'+i)), size))))
	}
	return b.String()
}

// TestEngineFramesMayArriveInPieces: split anywhere, byte by byte, and at random.
func TestEngineFramesMayArriveInPieces(t *testing.T) {
	t.Parallel()
	for _, p := range conntest.AllProtocols() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			for _, tt := range []struct {
				body string
				step int
			}{
				{messagesOf(0, 1, 520, 2, 0, 0, 130), 1},
				{messagesOf(5000, 40_000, 1, 9000), 991},
			} {
				want := received(p, &pieces{[]string{tt.body}, io.EOF}, bareHandler)
				ours := streamwrap.NewEngine(streamwrap.WithReadBuffer(4 << 10)).Handler
				check := func(how string, parts []string) {
					if got := received(p, &pieces{parts, io.EOF}, ours); got != want {
						t.Fatalf("%s: received %d bytes, want %d:\n%.200s", how, len(got), len(want), got)
					}
				}
				for i := 0; i <= len(tt.body); i += tt.step {
					check(fmt.Sprintf("split at %d", i), []string{tt.body[:i], tt.body[i:]})
				}
				check("byte by byte", strings.Split(tt.body, ""))
				for range 50 {
					var parts []string
					for rest := tt.body; rest != ""; {
						n := 1 + rand.IntN(min(len(rest), 1+rand.IntN(2000)))
						parts, rest = append(parts, rest[:n]), rest[n:]
					}
					check(fmt.Sprintf("%d pieces", len(parts)), parts)
				}
			}
		})
	}
}

// TestEngineKeepsErrorsOfBodies: cut anywhere, in any way, and malformed: the
// handler gets what it gets without the Engine.
func TestEngineKeepsErrorsOfBodies(t *testing.T) {
	t.Parallel()
	body := messagesOf(3, 0, 600, 20)
	limit := connect.WithReadMaxBytes(100)
	for _, p := range conntest.AllProtocols() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			ours := streamwrap.NewEngine().Handler
			check := func(how string, parts []string, err error, opts ...connect.HandlerOption) {
				t.Helper()
				want := received(p, &pieces{append([]string(nil), parts...), err}, bareHandler, opts...)
				if got := received(p, &pieces{parts, err}, ours, opts...); got != want {
					t.Fatalf("%s: %s, bare %s", how, got, want)
				}
			}
			for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, errLineCut, context.Canceled, connect.NewError(connect.CodeDataLoss, errLineCut)} {
				for i := 0; i <= len(body); i += 1 + i/50 {
					check(fmt.Sprintf("%v after %d", err, i), []string{body[:i]}, err)
					check(fmt.Sprintf("%v after %d, in pieces", err, i), []string{body[:i/2], body[i/2 : i]}, err, limit)
				}
			}
			for _, size := range []int{97, 98, 99, 200, 600, 40_000, 1 << 20} {
				large := messagesOf(1, size, 2)
				check(fmt.Sprintf("%d bytes", size), []string{large}, io.EOF, limit)
				check(fmt.Sprintf("%d bytes, cut", size), []string{large[:size/2]}, io.EOF, limit)
				check(fmt.Sprintf("%d bytes, broken", size), []string{large[:size/2]}, errLineCut, limit)
			}
			for _, malformed := range []string{
				"\x00\xff\xff\xff\xff", "\x02\x00\x00\x00\x02{}more", "\x80\x00\x00\x00\x00", "\x03\x00\x00\x00\x01x",
				"\x01\x00\x00\x00\x04gzip", "\x00\x00\x00\x00\x02\xff\xff", "GET / HTTP/1.1", "\x40\x00\x00\x00\x00",
			} {
				for i := range len(malformed) {
					check(fmt.Sprintf("%q", malformed), []string{malformed[:i], malformed[i:]}, io.EOF)
				}
			}
		})
	}
}

// TestEngineReadLimits: too large messages are refused as without the Engine, on
// real connections too.
func TestEngineReadLimits(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		config := conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithReadMaxBytes(1000)}}
		bare, ours := c.Clients(c.Start(t, config)), c.Clients(c.Start(t, behindEngine(config)))
		for _, size := range []int{900, 997, 998, 1100, 50_000, 300_000} {
			messages := []string{"one", strings.Repeat("x", size)}
			if c.Kind == connect.StreamTypeUnary || c.Kind == connect.StreamTypeServer {
				messages = messages[1:]
			}
			want := bare.Do(t.Context(), c.Kind, nil, messages...)
			got := ours.Do(t.Context(), c.Kind, nil, messages...)
			if fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || len(got.Messages) != len(want.Messages) {
				t.Errorf("%d bytes: %d messages, %v, bare %d, %v", size, len(got.Messages), got.Err, len(want.Messages), want.Err)
			}
			if wantErr := size > 997; wantErr != (got.Err != nil) {
				t.Errorf("%d bytes: %v", size, got.Err)
			}
		}
	})
}

// TestEngineReadsLargePieces: bodies of small messages cost few reads, and a
// large message is read past the buffer.
func TestEngineReadsLargePieces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		body  string
		reads int // at most
	}{
		{"10000 small messages", strings.Repeat(messagesOf(16), 10_000), 30},
		{"one large message", messagesOf(1 << 20), 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reads, largest, source := 0, 0, strings.NewReader(tt.body)
			body := readerFunc(func(p []byte) (int, error) {
				reads++
				largest = max(largest, len(p))
				return source.Read(p)
			})
			_ = received(conntest.GRPC, body, streamwrap.NewEngine().Handler)
			if reads > tt.reads {
				t.Errorf("%d reads", reads)
			}
			if largest < 16<<10 {
				t.Errorf("at most %d bytes at once", largest)
			}
		})
	}
}
