package auth

import (
	"context"
	"crypto/x509"
	"net/url"
	"strings"
)

// MTLSConfig says which certificates of clients are good. It needs a streamwrap.Engine
// around the server's mux, which knows the connection.
type MTLSConfig struct {
	// TrustDomain is the SPIFFE trust domain of callers, such as "example.org". Their
	// Subject is the certificate's SPIFFE ID. By default callers are not SPIFFE's.
	TrustDomain string

	// Authorize returns whose a certificate is; it is required without a TrustDomain.
	// With one it gets certificates of that domain, and may return nil to keep the
	// identity that they have by it.
	Authorize func(*x509.Certificate) (*Identity, error)

	// Unverified accepts certificates that crypto/tls has not verified, where
	// somebody else does, as go-spiffe's VerifyPeerCertificate, which connections that
	// are resumed skip. By default it takes a tls.Config with VerifyClientCertIfGiven
	// or RequireAndVerifyClientCert.
	Unverified bool
}

// MTLS authenticates callers by their TLS certificate. It panics if the configuration
// accepts everybody.
func MTLS(c MTLSConfig) Authenticator {
	if c.TrustDomain == "" && c.Authorize == nil {
		panic("auth: MTLS: neither TrustDomain nor Authorize")
	}
	return AuthenticatorFunc(func(_ context.Context, r *Request) (*Identity, error) {
		state, err := r.TLS()
		if err != nil {
			return nil, err
		}
		if state == nil || len(state.PeerCertificates) == 0 {
			return nil, ErrMissing
		}
		if len(state.VerifiedChains) == 0 && !c.Unverified {
			return nil, ErrInvalid
		}
		return c.identify(state.PeerCertificates[0])
	})
}

func (c *MTLSConfig) identify(certificate *x509.Certificate) (*Identity, error) {
	id := &Identity{Method: "mtls", Expiry: certificate.NotAfter, IssuedAt: certificate.NotBefore}
	if c.TrustDomain != "" {
		subject, ok := spiffeID(certificate, c.TrustDomain)
		if !ok {
			return nil, ErrInvalid
		}
		id.Subject, id.Issuer = subject, c.TrustDomain
	}
	if c.Authorize == nil {
		return id, nil
	}
	own, err := c.Authorize(certificate)
	if err != nil {
		return nil, err
	}
	if own == nil {
		if c.TrustDomain == "" {
			return nil, ErrInvalid
		}
		return id, nil
	}
	copied := *own
	if copied.Method == "" {
		copied.Method = "mtls"
	}
	if copied.Expiry.IsZero() {
		copied.Expiry = certificate.NotAfter
	}
	return &copied, nil
}

// spiffeID returns the SPIFFE ID of a certificate: its only URI.
func spiffeID(certificate *x509.Certificate, domain string) (string, bool) {
	if len(certificate.URIs) != 1 {
		return "", false
	}
	u := certificate.URIs[0]
	plain := u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.Opaque == ""
	if u.Scheme != "spiffe" || u.Host != domain || !plain || !spiffePath(u) {
		return "", false
	}
	return u.String(), true
}

// notSpiffe reports whether a character may not be in a path.
func notSpiffe(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// spiffePath reports whether a path has the form that SPIFFE demands, so that equal
// IDs are equal strings.
func spiffePath(u *url.URL) bool {
	if u.EscapedPath() != u.Path || u.Path == "" {
		return u.Path == ""
	}
	for segment := range strings.SplitSeq(strings.TrimPrefix(u.Path, "/"), "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, notSpiffe) {
			return false
		}
	}
	return u.Path[0] == '/'
}
