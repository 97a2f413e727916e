package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// issuer of certificates for clients.
type certifier struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newCertifier(tb testing.TB) *certifier {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &certifier{key, root}
}

// issue returns a certificate with the URIs, which lives for a while.
func (c *certifier) issue(tb testing.TB, life time.Duration, uris ...string) tls.Certificate {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ada"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			tb.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.root, &c.key.PublicKey, c.key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: c.key, Leaf: leaf}
}

// startTLS starts a server that asks for certificates in a way.
func (c *certifier) startTLS(tb testing.TB, tc conntest.Case, way tls.ClientAuthType, config conntest.Config, certificates ...tls.Certificate) *conntest.Server {
	tb.Helper()
	config.TuneServer = func(s *http.Server) {
		if s.TLSConfig == nil {
			s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		s.TLSConfig.ClientAuth = way
		s.TLSConfig.ClientCAs = x509.NewCertPool()
		s.TLSConfig.ClientCAs.AddCert(c.root)
	}
	config.TuneClient = func(transport *http.Transport) {
		transport.TLSClientConfig = transport.TLSClientConfig.Clone()
		// Send it whether the server's list of roots has its issuer or not.
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certificates) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certificates[0], nil
		}
	}
	return tc.Start(tb, config)
}

var encrypted = []conntest.Transport{conntest.H2TLS, conntest.H1TLS}

// TestMTLS: a client is who its certificate says, with every protocol and kind.
func TestMTLS(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: encrypted}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		ca := newCertifier(t)
		certificate := ca.issue(t, time.Minute, "spiffe://example.org/ns/a/sa/b")
		var seen events
		i := auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org"}), seen.option())
		srv := ca.startTLS(t, c, tls.RequireAndVerifyClientCert, behind(i, conntest.Config{}), certificate)
		if err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Fatal(err)
		}
		id := seen.all()[0].Identity
		if id.Subject != "spiffe://example.org/ns/a/sa/b" || id.Issuer != "example.org" || id.Method != "mtls" || !id.Expiry.Equal(certificate.Leaf.NotAfter) {
			t.Errorf("%+v", id)
		}
	})
}

// TestMTLSStreamEndsWithTheCertificate: nobody asks for it a second time.
func TestMTLSStreamEndsWithTheCertificate(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: encrypted, Kinds: streaming}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		ca := newCertifier(t)
		i := auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org"}))
		srv := ca.startTLS(t, c, tls.RequireAndVerifyClientCert, behind(i, conntest.Config{Service: conntest.ServeStreams(idle)}), ca.issue(t, time.Minute, "spiffe://example.org/a"))
		start := time.Now()
		wantStreamEnd(t, call(t.Context(), c, srv, nil, 0), auth.ReasonExpired, connect.CodeUnauthenticated)
		if took := srv.WaitCalls(1)[0].Ended.Sub(start); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestMTLSConnectionOutlivesItsCertificate: TLS looks at it once, an RPC each time.
func TestMTLSConnectionOutlivesItsCertificate(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: encrypted}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		ca := newCertifier(t)
		i := auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org"}))
		srv := ca.startTLS(t, c, tls.RequireAndVerifyClientCert, behind(i, conntest.Config{}), ca.issue(t, time.Minute, "spiffe://example.org/a"))
		clients := c.Clients(srv)
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		wantReason(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, auth.ReasonExpired, connect.CodeUnauthenticated)
	})
}

// TestMTLSConnections: what counts is that the certificate was verified, and that the
// connection is known at all.
func TestMTLSConnections(t *testing.T) {
	t.Parallel()
	ca, other := newCertifier(t), newCertifier(t)
	good, foreign := ca.issue(t, time.Hour, "spiffe://example.org/a"), other.issue(t, time.Hour, "spiffe://example.org/a")
	for _, tt := range []struct {
		name         string
		way          tls.ClientAuthType
		certificates []tls.Certificate
		unverified   bool
		noEngine     bool
		reason       auth.Reason
	}{
		{"verified", tls.VerifyClientCertIfGiven, []tls.Certificate{good}, false, false, ""},
		{"none", tls.VerifyClientCertIfGiven, nil, false, false, auth.ReasonMissing},
		{"not asked for", tls.NoClientCert, []tls.Certificate{good}, false, false, auth.ReasonMissing},
		{"only requested", tls.RequestClientCert, []tls.Certificate{foreign}, false, false, auth.ReasonInvalid},
		{"only required", tls.RequireAnyClientCert, []tls.Certificate{good}, false, false, auth.ReasonInvalid},
		{"somebody else verifies", tls.RequireAnyClientCert, []tls.Certificate{good}, true, false, ""},
		{"no Engine", tls.RequireAndVerifyClientCert, []tls.Certificate{good}, false, true, auth.ReasonBroken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: encrypted, Protocols: []conntest.Protocol{conntest.Connect, conntest.GRPC}}.Each(t, func(t *testing.T, c conntest.Case) {
				i := auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org", Unverified: tt.unverified}))
				config := behind(i, conntest.Config{})
				if tt.noEngine {
					config.Wrap = nil
				}
				srv := ca.startTLS(t, c, tt.way, config, tt.certificates...)
				err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err
				if reasonOf(err) != tt.reason || (err == nil) != (tt.reason == "") {
					t.Errorf("%v", err)
				}
			})
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: web}.Each(t, func(t *testing.T, c conntest.Case) {
			srv := c.Start(t, behind(auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org"})), conntest.Config{}))
			wantReason(t, c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err, auth.ReasonMissing, connect.CodeUnauthenticated)
		})
	})
}

// TestSPIFFEIDs: one URI, of the domain, in the only form that an ID has.
func TestSPIFFEIDs(t *testing.T) {
	t.Parallel()
	ca := newCertifier(t)
	for _, tt := range []struct {
		uris []string
		good bool
	}{
		{[]string{"spiffe://example.org/a"}, true},
		{[]string{"spiffe://example.org/a/b.c-d_E9"}, true},
		{nil, false},
		{[]string{"spiffe://example.org/a", "spiffe://example.org/b"}, false},
		{[]string{"spiffe://example.org/a", "https://example.org/a"}, false},
		{[]string{"spiffe://example.com/a"}, false},
		{[]string{"spiffe://Example.org/a"}, false},
		{[]string{"spiffe://example.org.evil.com/a"}, false},
		{[]string{"spiffe://sub.example.org/a"}, false},
		{[]string{"spiffe://example.org:443/a"}, false},
		{[]string{"spiffe://user@example.org/a"}, false},
		{[]string{"spiffe://@example.org/a"}, false},
		{[]string{"spiffe://example.org/a?q=1"}, false},
		{[]string{"spiffe://example.org/a?"}, false},
		{[]string{"spiffe://example.org/a#f"}, false},
		{[]string{"spiffe://example.org/"}, false},
		{[]string{"spiffe://example.org/a/"}, false},
		{[]string{"spiffe://example.org//a"}, false},
		{[]string{"spiffe://example.org/a/../b"}, false},
		{[]string{"spiffe://example.org/./a"}, false},
		{[]string{"spiffe://example.org/a%2Fb"}, false},
		{[]string{"spiffe://example.org/%61"}, false},
		{[]string{"https://example.org/a"}, false},
		{[]string{"spiffe:example.org/a"}, false},
		{[]string{"spiffe:///a"}, false},
	} {
		if id, err := identify(t, ca, auth.MTLSConfig{TrustDomain: "example.org"}, tt.uris...); (err == nil) != tt.good ||
			tt.good && id.Subject != tt.uris[0] || !tt.good && reasonOf(err) != auth.ReasonInvalid {
			t.Errorf("%q: %+v, %v", tt.uris, id, err)
		}
	}
}

// TestSPIFFECharacters: letters, digits, dots, dashes and underscores are all there are.
func TestSPIFFECharacters(t *testing.T) {
	t.Parallel()
	ca := newCertifier(t)
	for _, path := range []string{"a~b", "a:b", "a@b", "a$b", "a&b", "a+b", "a=b", "a,b", "a!b", "a*b"} {
		if id, err := identify(t, ca, auth.MTLSConfig{TrustDomain: "example.org"}, "spiffe://example.org/"+path); reasonOf(err) != auth.ReasonInvalid {
			t.Errorf("%s: %+v, %v", path, id, err)
		}
	}
}

// identify makes a unary call with a certificate that has the URIs.
func identify(t *testing.T, ca *certifier, config auth.MTLSConfig, uris ...string) (id *auth.Identity, err error) {
	t.Helper()
	var seen events
	c := conntest.Case{Transport: conntest.H2TLS, Kind: connect.StreamTypeUnary}
	i := auth.NewServerInterceptor(auth.MTLS(config), seen.option())
	srv := ca.startTLS(t, c, tls.RequireAndVerifyClientCert, behind(i, conntest.Config{}), ca.issue(t, time.Hour, uris...))
	err = c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err
	if all := seen.all(); len(all) == 1 {
		id = all[0].Identity
	}
	return id, err
}

// TestMTLSAuthorize: it says whose a certificate is, after the domain has been checked.
func TestMTLSAuthorize(t *testing.T) {
	t.Parallel()
	ca := newCertifier(t)
	own := &auth.Identity{Subject: "ada"}
	returns := func(id *auth.Identity, err error) func(*x509.Certificate) (*auth.Identity, error) {
		return func(*x509.Certificate) (*auth.Identity, error) { return id, err }
	}
	for _, tt := range []struct {
		name    string
		config  auth.MTLSConfig
		uri     string
		subject string
		method  string
		reason  auth.Reason
	}{
		{"own", auth.MTLSConfig{Authorize: returns(own, nil)}, "https://x", "ada", "mtls", ""},
		{"own method", auth.MTLSConfig{Authorize: returns(&auth.Identity{Subject: "bob", Method: "m"}, nil)}, "https://x", "bob", "m", ""},
		{"nobody", auth.MTLSConfig{Authorize: returns(nil, nil)}, "https://x", "", "", auth.ReasonInvalid},
		{"keeps the ID", auth.MTLSConfig{TrustDomain: "d", Authorize: returns(nil, nil)}, "spiffe://d/a", "spiffe://d/a", "mtls", ""},
		{"replaces the ID", auth.MTLSConfig{TrustDomain: "d", Authorize: returns(own, nil)}, "spiffe://d/a", "ada", "mtls", ""},
		{"refuses", auth.MTLSConfig{TrustDomain: "d", Authorize: returns(nil, auth.ErrRevoked)}, "spiffe://d/a", "", "", auth.ReasonRevoked},
		{"domain first", auth.MTLSConfig{TrustDomain: "d", Authorize: returns(own, nil)}, "spiffe://e/a", "", "", auth.ReasonInvalid},
		{"fails", auth.MTLSConfig{Authorize: returns(nil, errors.New(private))}, "https://x", "", "", auth.ReasonBroken},
		{"panics", auth.MTLSConfig{Authorize: func(*x509.Certificate) (*auth.Identity, error) { panic(private) }}, "https://x", "", "", auth.ReasonBroken},
	} {
		id, err := identify(t, ca, tt.config, tt.uri)
		if reasonOf(err) != tt.reason || err == nil && (id.Subject != tt.subject || id.Method != tt.method || id.Expiry.IsZero()) {
			t.Errorf("%s: %+v, %v", tt.name, id, err)
		}
	}
	if own.Method != "" || !own.Expiry.IsZero() {
		t.Errorf("the identity that Authorize returned was changed: %+v", own)
	}
}

// TestForwardedCertificateIsNone: what a header says of a certificate, as some proxies
// send it, is not one.
func TestForwardedCertificateIsNone(t *testing.T) {
	t.Parallel()
	c := conntest.Case{Kind: connect.StreamTypeUnary}
	srv := c.Start(t, behind(auth.NewServerInterceptor(auth.MTLS(auth.MTLSConfig{TrustDomain: "example.org"})), conntest.Config{}))
	header := http.Header{"X-Forwarded-Client-Cert": {"URI=spiffe://example.org/a"}}
	wantReason(t, c.Clients(srv).Do(t.Context(), c.Kind, header, "one").Err, auth.ReasonMissing, connect.CodeUnauthenticated)
}
