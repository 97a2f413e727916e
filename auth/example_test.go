package auth_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/streamwrap"
)

const helloProcedure = "/example.v1.Greeter/Hello"

func Example() {
	// An issuer's key. Most publish theirs: see auth.NewJWKS.
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	keys, err := auth.Keys(auth.Key{ID: "2026", Alg: "EdDSA", Public: public})
	if err != nil {
		panic(err)
	}
	tokens, err := auth.NewJWTVerifier(auth.JWTConfig{
		Issuer: "https://issuer.example.com", Audiences: []string{"greeter"}, Keys: keys,
	})
	if err != nil {
		panic(err)
	}

	// The server: nobody gets in but those who may greet.
	policy := auth.NewPolicy().Allow("/example.v1.Greeter/", auth.Scopes("greet"))
	auths := auth.NewServerInterceptor(tokens, auth.WithPolicy(policy))
	mux := http.NewServeMux()
	mux.Handle(helloProcedure, connect.NewUnaryHandler(helloProcedure,
		func(ctx context.Context, _ *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			caller, _ := auth.FromContext(ctx)
			return connect.NewResponse(wrapperspb.String("Hello, " + caller.Subject)), nil
		}, auths.HandlerOption()))
	server := httptest.NewServer(streamwrap.NewEngine().Handler(mux))
	defer server.Close()

	// Clients: each with tokens of its own, which are fetched before they expire.
	hello := func(subject, scope string) {
		source := auth.Cached(auth.TokenFunc(func(context.Context) (auth.Token, error) {
			expiry := time.Now().Add(time.Hour)
			token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
				"iss": "https://issuer.example.com", "aud": "greeter", "sub": subject, "scope": scope, "exp": expiry.Unix(),
			})
			token.Header["kid"] = "2026"
			value, err := token.SignedString(private)
			return auth.Token{Value: value, Expiry: expiry}, err
		}))
		client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](
			auth.HTTPClient(server.Client()), server.URL+helloProcedure,
			connect.WithInterceptors(auth.NewClientInterceptor(source)))
		res, err := client.CallUnary(context.Background(), connect.NewRequest(wrapperspb.String("")))
		if err != nil {
			reason, _ := auth.ReasonOf(err)
			fmt.Println(err, reason)
			return
		}
		fmt.Println(res.Msg.GetValue())
	}
	hello("ada", "greet")
	hello("eve", "")
	// Output:
	// Hello, ada
	// permission_denied: permission denied SCOPE_INSUFFICIENT
}
