//go:build conformance

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// The runner kills a server five seconds after it asked it to stop.
const shutdownTime = 3 * time.Second

// runServer serves as the request on in says until the runner terminates the
// process, and returns when the last handler has.
func runServer(in io.Reader, out io.Writer, v *variant) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var req gen.ServerCompatRequest
	if err := readMessage(in, &req); err != nil {
		return err
	}
	server, err := newServer(&req, v)
	if err != nil {
		return err
	}
	// On HTTP/2 a server that shuts down does not wait for the handlers of
	// requests that were reset.
	var handlers sync.WaitGroup
	inner := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		inner.ServeHTTP(w, r)
	})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() {
		if req.GetUseTls() {
			served <- server.ServeTLS(listener, "", "")
		} else {
			served <- server.Serve(listener)
		}
	}()
	addr, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return errors.New("not a TCP listener")
	}
	err = writeMessage(out, &gen.ServerCompatResponse{
		Host: addr.IP.String(), Port: uint32(addr.Port), PemCert: req.GetServerCreds().GetCert(),
	})
	if err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if server.Shutdown(patience) != nil {
		_ = server.Close() // clients that wait for something: cut them off
	}
	handlers.Wait()
	return nil
}

func newServer(req *gen.ServerCompatRequest, v *variant) (*http.Server, error) {
	mux := http.NewServeMux()
	mux.Handle(gen.NewConformanceServiceHandler(service{},
		connect.WithReadMaxBytes(int(req.GetMessageReceiveLimit())), v.handlerOption()))
	server := &http.Server{
		Handler:           v.wrapHandler(mux),
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // broken clients are the point
	}
	switch req.GetHttpVersion() {
	case gen.HTTPVersion_HTTP_VERSION_1:
		server.Protocols.SetHTTP1(true)
	case gen.HTTPVersion_HTTP_VERSION_2:
		server.Protocols.SetHTTP2(true)
		server.Protocols.SetUnencryptedHTTP2(true)
	default:
		return nil, errors.New("no server for " + req.GetHttpVersion().String())
	}
	if !req.GetUseTls() {
		return server, nil
	}
	cert, err := tls.X509KeyPair(req.GetServerCreds().GetCert(), req.GetServerCreds().GetKey())
	if err != nil {
		return nil, err
	}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	if pem := req.GetClientTlsCert(); len(pem) > 0 {
		server.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
		server.TLSConfig.ClientCAs = x509.NewCertPool()
		server.TLSConfig.ClientCAs.AppendCertsFromPEM(pem)
	}
	return server, nil
}
