package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"
	"github.com/interconnect-go/interconnect/auth"
)

const (
	jwtName  = "golang-jwt"
	authName = "auth"

	tokenIssuer   = "https://issuer.example.com"
	tokenAudience = "bench"
)

// authTable compares what tokens cost.
func authTable() Table {
	vs := Comparison{authName, jwtName}
	goals := func(must, aim float64) []Goal { return []Goal{{Comparison: vs, Must: must, Aim: aim}} }
	return Table{
		Name:  "auth",
		Title: "Tokens on a handler, without the RPC",
		Notes: []string{
			"golang-jwt is a gate as people write it: it takes the header's token and verifies it, each time, " +
				"with an issuer, an audience and a list of algorithms. auth has its defaults, and golang-jwt in " +
				"it. A new token is one that auth does not remember.",
		},
		Contenders: []Contender{
			{Name: jwtName, Start: func() (Client, func(), error) { return startTokens(bareTokens) }},
			{Name: authName, Start: func() (Client, func(), error) { return startTokens(authTokens) }},
		},
		Comparisons: []Comparison{vs},
		Rows: []Row{
			{Name: "token that is remembered", Do: checkToken("good", true), Goals: goals(100, 300)},
			{Name: "whole gate, token that is remembered", Do: passGate, Goals: goals(10, 0)},
			{Name: "new token, ES256", Do: checkNewToken, Goals: goals(0.9, 1)},
			{Name: "bad signature", Do: checkToken("bad signature", false), Goals: goals(0.8, 0)},
			{Name: "wrong algorithm", Do: checkToken("wrong algorithm", false), Goals: goals(2, 10)},
			{Name: "garbage", Do: checkToken("garbage", false), Goals: goals(2, 0)},
			{Name: "a MiB of token", Do: checkToken("oversize", false), Goals: goals(100, 0)},
		},
	}
}

// checker is a way to check tokens.
type checker struct {
	known, cold func(context.Context, http.Header) error
	gate        connect.RequestGateFunc
}

// tokens is a contender's "client". It calls nobody.
type tokens struct {
	Client

	checker
	headers map[string]http.Header
}

// Unary implements [Client], for what makes sure that contenders work.
func (tokens) Unary(_ context.Context, m *Message) (*Message, error) { return m, nil }

// startTokens makes a key, tokens, and what checks them.
func startTokens(check func(*ecdsa.PublicKey) (checker, error)) (Client, func(), error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	good, err := newToken(key)
	if err != nil {
		return nil, nil, err
	}
	c, err := check(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	_, payload, _ := strings.Cut(good, ".")
	headers := make(map[string]http.Header)
	for name, text := range map[string]string{
		"good":            good,
		"bad signature":   good[:len(good)-20] + strings.Repeat("A", 20),
		"wrong algorithm": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"key","typ":"JWT"}`)) + "." + payload,
		"garbage":         "garbage",
		"oversize":        good[:40] + "." + strings.Repeat("b", mib) + ".c",
	} {
		headers[name] = http.Header{"Authorization": {"Bearer " + text}}
	}
	return tokens{checker: c, headers: headers}, func() {}, nil
}

// newToken returns a token for a day.
func newToken(key *ecdsa.PrivateKey) (string, error) {
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": tokenIssuer, "aud": tokenAudience, "sub": "ada", "jti": "1", "scope": "read write", "roles": []string{"admin"},
		"iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	})
	token.Header["kid"] = "key"
	return token.SignedString(key)
}

// newVerifier returns what verifies tokens, and remembers as many as its cache says.
func newVerifier(key *ecdsa.PublicKey, cache int) (auth.Authenticator, error) {
	keys, err := auth.Keys(auth.Key{ID: "key", Alg: "ES256", Public: key})
	if err != nil {
		return nil, err
	}
	return auth.NewJWTVerifier(auth.JWTConfig{Issuer: tokenIssuer, Audiences: []string{tokenAudience}, Keys: keys, Cache: cache})
}

// bareTokens checks tokens with golang-jwt alone.
func bareTokens(key *ecdsa.PublicKey) (checker, error) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(tokenIssuer), jwt.WithAudience(tokenAudience))
	check := func(_ context.Context, h http.Header) error {
		token, ok := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
		if !ok {
			return errors.New("no token")
		}
		_, err := parser.ParseWithClaims(token, &jwt.RegisteredClaims{}, func(*jwt.Token) (any, error) { return key, nil })
		return err
	}
	return checker{check, check, func(ctx context.Context, _ connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
		return ctx, check(ctx, h)
	}}, nil
}

// authTokens checks them with auth.
func authTokens(key *ecdsa.PublicKey) (checker, error) {
	known, err := newVerifier(key, 0)
	if err != nil {
		return checker{}, err
	}
	cold, err := newVerifier(key, -1)
	if err != nil {
		return checker{}, err
	}
	check := func(a auth.Authenticator) func(context.Context, http.Header) error {
		r := &auth.Request{}
		return func(ctx context.Context, h http.Header) error {
			r.Header = h
			_, err := a.Authenticate(ctx, r)
			return err
		}
	}
	return checker{check(known), check(cold), auth.NewServerInterceptor(known).Gate()}, nil
}

// checkToken checks a token n times.
func checkToken(name string, good bool) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		t := client.(tokens) //nolint:errcheck // the table's contenders have no others
		return nil, repeat(n, good, func() error { return t.known(ctx, t.headers[name]) })
	}
}

// checkNewToken checks a token n times, none of which is remembered.
func checkNewToken(ctx context.Context, client Client, n int) ([]float64, error) {
	t := client.(tokens) //nolint:errcheck // the table's contenders have no others
	return nil, repeat(n, true, func() error { return t.cold(ctx, t.headers["good"]) })
}

// passGate begins and ends n RPCs, as far as a gate sees them.
func passGate(ctx context.Context, client Client, n int) ([]float64, error) {
	t := client.(tokens) //nolint:errcheck // the table's contenders have no others
	spec := connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: unaryProcedure}
	return nil, repeat(n, true, func() error {
		request, end := context.WithCancel(ctx) // as net/http has it
		defer end()
		_, err := t.gate(request, spec, connect.Peer{Addr: "a", Protocol: connect.ProtocolGRPC}, t.headers["good"])
		return err
	})
}

func repeat(n int, good bool, check func() error) error {
	for range n {
		if err := check(); (err == nil) != good {
			return fmt.Errorf("good is %v: %w", !good, err)
		}
	}
	return nil
}
