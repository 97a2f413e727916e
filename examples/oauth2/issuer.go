package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// issuer is an authorization server, of which only the client credentials grant is there.
// Its tokens say nothing: whoever gets one asks whose it is.
type issuer struct {
	mu     sync.Mutex
	issued int
	closed bool
	tokens map[auth.KeyDigest]*auth.Identity
}

// ServeHTTP implements http.Handler.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	switch {
	case i.closed:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case id != "robot" || secret != "secret" || r.FormValue("grant_type") != "client_credentials":
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	const life = time.Hour
	token := rand.Text()
	i.issued++
	i.tokens = map[auth.KeyDigest]*auth.Identity{
		auth.DigestKey("Bearer " + token): {Subject: id, Expiry: time.Now().Add(life)},
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": token, "token_type": "bearer", "expires_in": life.Seconds(),
	})
}

// lookup finds out whose an Authorization header is.
func (i *issuer) lookup(_ context.Context, header auth.KeyDigest) (*auth.Identity, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if id, ok := i.tokens[header]; ok {
		return id, nil
	}
	return nil, auth.ErrInvalid
}

// revoke takes all tokens back.
func (i *issuer) revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens = nil
}

// close makes it refuse to issue tokens.
func (i *issuer) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
}

// count returns how many tokens were issued.
func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.issued
}
