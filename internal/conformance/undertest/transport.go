//go:build conformance

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// transports are the HTTP clients of a run: one for each server, to reuse its
// connections.
type transports struct{ clients sync.Map } // of *http.Client, by transportKey

type transportKey struct {
	url        string
	clientCert string
	version    gen.HTTPVersion
	mayBeReset bool
}

// get returns the HTTP client for a request, and the URL of its server.
func (t *transports) get(req *gen.ClientCompatRequest) (*http.Client, string, error) {
	scheme := "http"
	if len(req.GetServerTlsCert()) > 0 {
		scheme = "https"
	}
	url := scheme + "://" + net.JoinHostPort(req.GetHost(), strconv.Itoa(int(req.GetPort())))
	key := transportKey{
		url:        url,
		clientCert: string(req.GetClientTlsCreds().GetCert()),
		version:    req.GetHttpVersion(),
		// On HTTP/1.1 cancellation closes the connection, now and then after
		// net/http has already given it to another request.
		mayBeReset: req.GetHttpVersion() == gen.HTTPVersion_HTTP_VERSION_1 &&
			(req.GetCancel() != nil || req.TimeoutMs != nil),
	}
	if client, ok := t.clients.Load(key); ok {
		return client.(*http.Client), url, nil //nolint:errcheck // only *http.Client is stored in this map
	}
	transport, err := newTransport(req)
	if err != nil {
		return nil, "", err
	}
	transport.DisableKeepAlives = key.mayBeReset
	client, _ := t.clients.LoadOrStore(key, &http.Client{Transport: transport})
	return client.(*http.Client), url, nil //nolint:errcheck // only *http.Client is stored in this map
}

func newTransport(req *gen.ClientCompatRequest) (*http.Transport, error) {
	transport := &http.Transport{
		Protocols:          new(http.Protocols),
		DisableCompression: true, // it is connect's
	}
	switch req.GetHttpVersion() {
	case gen.HTTPVersion_HTTP_VERSION_1:
		transport.Protocols.SetHTTP1(true)
	case gen.HTTPVersion_HTTP_VERSION_2:
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
	default:
		return nil, fmt.Errorf("no client for %v", req.GetHttpVersion())
	}
	if len(req.GetServerTlsCert()) == 0 {
		return transport, nil
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(req.GetServerTlsCert()) {
		return nil, errors.New("no certificate of the server")
	}
	if creds := req.GetClientTlsCreds(); creds != nil {
		cert, err := tls.X509KeyPair(creds.GetCert(), creds.GetKey())
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.Certificates = []tls.Certificate{cert}
	}
	return transport, nil
}
