package streamwrap_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// dullWriter is a ResponseWriter that can do nothing else.
type dullWriter struct{ header http.Header }

func (w *dullWriter) Header() http.Header { return w.header }

func (w *dullWriter) Write(p []byte) (int, error) { return len(p), nil }

func (w *dullWriter) WriteHeader(int) {}

type dullFlusher struct{}

func (dullFlusher) Flush() {}

type dullHijacker struct{}

func (dullHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errLineCut }

// TestEngineWriterIsWhatTheServersIs: connect and others look at what a
// ResponseWriter can do.
func TestEngineWriterIsWhatTheServersIs(t *testing.T) {
	t.Parallel()
	dull := &dullWriter{make(http.Header)}
	for _, tt := range []struct {
		name          string
		w             http.ResponseWriter
		flush, hijack bool
	}{
		{"nothing", dull, false, false},
		{"flush", struct {
			*dullWriter
			dullFlusher
		}{dullWriter: dull}, true, false},
		{"flush and hijack", struct {
			*dullWriter
			dullFlusher
			dullHijacker
		}{dullWriter: dull}, true, true},
		{"hijack", struct {
			*dullWriter
			dullHijacker
		}{dullWriter: dull}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, flush := w.(http.Flusher)
				_, hijack := w.(http.Hijacker)
				if flush != tt.flush || hijack != tt.hijack {
					t.Errorf("Flusher %v, Hijacker %v, want %v and %v", flush, hijack, tt.flush, tt.hijack)
				}
				if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); !ok || u.Unwrap() != tt.w {
					t.Error("Unwrap does not return the server's ResponseWriter")
				}
				if h, ok := w.(http.Hijacker); ok {
					if _, _, err := h.Hijack(); !errors.Is(err, errLineCut) {
						t.Errorf("Hijack: %v", err)
					}
				}
			})
			serving(tt.w, conntest.Connect, handler)
		})
	}
}

// TestEngineLetsHandlersHijack: the connection is the handler's, during and after
// ServeHTTP.
func TestEngineLetsHandlersHijack(t *testing.T) {
	t.Parallel()
	for name, hijack := range map[string]func(http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error){
		"Hijacker": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) { return w.(http.Hijacker).Hijack() },
		"ResponseController": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			return http.NewResponseController(w).Hijack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				returned := make(chan struct{})
				config, dial := dialing(behindEngine(conntest.Config{
					Transport: conntest.H1,
					Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
						mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
							x, _ := streamwrap.ExchangeFromContext(r.Context())
							conn, rw, err := hijack(w)
							if err != nil {
								t.Error(err)
								return
							}
							if _, err := w.Write([]byte("lost")); !errors.Is(err, http.ErrHijacked) && err == nil {
								t.Errorf("Write after Hijack: %v", err)
							}
							go func() {
								defer conn.Close()
								<-returned
								if x.Interrupt(errLineCut) || x.Reset(errLineCut) {
									t.Error("the connection is not the server's any more")
								}
								line, _ := rw.ReadString('\n')
								_, _ = conn.Write([]byte("got " + line))
							}()
						})
					},
				}))
				config = around(config, func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer close(returned)
						next.ServeHTTP(w, r)
					})
				})
				conntest.Start(t, config)
				conn := dial(t)
				_, _ = io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: a\r\n\r\n")
				<-returned
				synctest.Wait()
				_, _ = io.WriteString(conn, "hello\n")
				if got, err := io.ReadAll(conn); string(got) != "got hello\n" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}

// TestEngineResponseControllerReachesTheServer: what the writer cannot do itself
// is found through it.
func TestEngineResponseControllerReachesTheServer(t *testing.T) {
	t.Parallel()
	for _, transport := range []conntest.Transport{conntest.H1, conntest.H2C} {
		for _, tt := range []struct {
			name     string
			handle   func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, r *http.Request)
			bodiless bool
			now      string // what the client gets while the handler runs
		}{
			{name: "SetReadDeadline", handle: func(t *testing.T, rc *http.ResponseController, _ http.ResponseWriter, r *http.Request) {
				if err := rc.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					t.Error(err)
				}
				within(t, time.Second, "Read", func() {
					if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Read: %v", err)
					}
				})
			}},
			{name: "SetWriteDeadline", handle: func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, _ *http.Request) {
				if err := rc.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
					t.Error(err)
				}
				within(t, time.Second, "Write", func() {
					for range 1000 { // nobody reads
						if _, err := w.Write(make([]byte, 1<<10)); err != nil {
							return
						}
					}
					t.Error("Write does not fail")
				})
			}, bodiless: true},
			{name: "EnableFullDuplex", handle: func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
				if err := rc.EnableFullDuplex(); err != nil {
					t.Error(err)
				}
				_, _ = w.Write([]byte("now"))
				// Without full duplex net/http waits here for the rest of the request.
				if err := rc.Flush(); err != nil {
					t.Error(err)
				}
				_, _ = r.Body.Read(make([]byte, 1))
			}, now: "now"},
			{name: "Flush", handle: func(t *testing.T, rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte("now"))
				if err := rc.Flush(); err != nil {
					t.Error(err)
				}
				<-r.Context().Done()
			}, bodiless: true, now: "now"},
		} {
			t.Run(transport.String()+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					srv := conntest.Start(t, behindEngine(conntest.Config{
						Transport: transport,
						Window:    4 << 10,
						Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
							mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
								tt.handle(t, http.NewResponseController(w), w, r)
							})
						},
					}))
					pipe, end := io.Pipe()
					defer end.CloseWithError(errLineCut)
					body := io.Reader(pipe)
					if tt.bodiless {
						body = http.NoBody
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/x", body)
					if err != nil {
						t.Fatal(err)
					}
					res, err := srv.Client().Do(req)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					got := make([]byte, len(tt.now))
					if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != tt.now {
						t.Errorf("%q, %v", got, err)
					}
					if tt.now == "" {
						time.Sleep(time.Minute) // the client does not read
					}
				})
			})
		}
	}
}
