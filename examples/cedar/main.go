// Command cedar has a policy engine decide who may call what: the rules of GreetService
// are written in Cedar, and asked through auth.Policy.Require before anything of a call
// is decoded. It exits 0 only if all of it is as it must be.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/cedar-policy/cedar-go"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// rules are those of GreetService. Nobody may do what no rule permits.
const rules = `
permit (principal in Role::"greeter", action == Action::"Greet", resource == Service::"greet.v1.GreetService");
permit (principal in Role::"admin", action, resource == Service::"greet.v1.GreetService");
forbid (principal, action, resource) when { context.kind == "stream" && principal.clearance < 2 };
`

// engine is the adapter. It knows the clearances of people by their names.
type engine struct {
	policies   *cedar.PolicySet
	clearances map[string]cedar.Long
}

// permits asks whether a caller may make a call. A rule that cannot be evaluated is not
// one that permits, nor one that denies: the error is for the server's own logs, and the
// caller is told to come back.
func (e engine) permits(_ context.Context, id *auth.Identity, call *streamwrap.Call) error {
	user := cedar.Entity{UID: cedar.NewEntityUID("User", cedar.String(id.Subject))}
	roles := make([]cedar.EntityUID, 0, len(id.Roles))
	for _, role := range id.Roles {
		roles = append(roles, cedar.NewEntityUID("Role", cedar.String(role)))
	}
	user.Parents = cedar.NewEntityUIDSet(roles...)
	if clearance, ok := e.clearances[id.Subject]; ok {
		user.Attributes = cedar.NewRecord(cedar.RecordMap{"clearance": clearance})
	}
	kind := cedar.String("unary")
	if call.StreamType() != connect.StreamTypeUnary {
		kind = "stream"
	}
	decision, why := cedar.Authorize(e.policies, cedar.EntityMap{user.UID: user}, cedar.Request{
		Principal: user.UID,
		Action:    cedar.NewEntityUID("Action", cedar.String(call.Method())),
		Resource:  cedar.NewEntityUID("Service", cedar.String(call.Service())),
		Context:   cedar.NewRecord(cedar.RecordMap{"kind": kind}),
	})
	switch {
	case len(why.Errors) > 0:
		return fmt.Errorf("cedar: %v", why.Errors)
	case decision != cedar.Allow:
		return auth.ErrDenied
	}
	return nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cedar:", err)
		os.Exit(1)
	}
}

// run is the program: a service and its callers.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	policies, err := cedar.NewPolicySetFromBytes("greet.cedar", []byte(rules))
	if err != nil {
		return err
	}
	people := auth.StaticKeys(map[auth.KeyDigest]*auth.Identity{
		auth.DigestKey("ada's"):   {Subject: "ada", Roles: []string{"greeter"}},
		auth.DigestKey("grace's"): {Subject: "grace", Roles: []string{"admin"}},
		auth.DigestKey("alan's"):  {Subject: "alan", Roles: []string{"admin"}},
	})
	decides := engine{policies, map[string]cedar.Long{"ada": 1, "grace": 2}}
	policy := auth.NewPolicy().
		Allow("/greet.v1.GreetService/", auth.Authenticated()).
		Require(decides.permits)
	auths := auth.NewServerInterceptor(auth.APIKey("X-Api-Key", people), auth.WithPolicy(policy))
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, auths.HandlerOption()))
	url, err := serve(ctx, streamwrap.NewEngine().Handler(mux))
	if err != nil {
		return err
	}
	client := greetv1connect.NewGreetServiceClient(&http.Client{Transport: streamwrap.NewTransport(nil)}, url)

	var wrong error
	check := func(what, got, want string) {
		fmt.Fprintf(out, "%s: %s\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
		}
	}
	check("Ada greets", greet(ctx, client, "ada's"), "Hello, ada")
	check("Ada converses", converse(ctx, client, "ada's"), "permission_denied, PERMISSION_DENIED")
	check("Grace converses", converse(ctx, client, "grace's"), "Hello, grace")
	check("Alan greets", greet(ctx, client, "alan's"), "Hello, alan")
	check("Alan converses, of whom too little is known", converse(ctx, client, "alan's"), "unavailable, AUTH_UNAVAILABLE")
	return wrong
}

// serve serves a handler on a port of this machine until ctx ends.
func serve(ctx context.Context, handler http.Handler) (url string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := streamwrap.TuneServer(&http.Server{Handler: handler})
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}

// greet makes a call and tells how it went.
func greet(ctx context.Context, client greetv1connect.GreetServiceClient, key string) string {
	req := connect.NewRequest(&greetv1.GreetRequest{})
	req.Header().Set("X-Api-Key", key)
	res, err := client.Greet(ctx, req)
	if err != nil {
		return describe(err)
	}
	return res.Msg.GetGreeting()
}

// converse opens a stream and tells how it went.
func converse(ctx context.Context, client greetv1connect.GreetServiceClient, key string) string {
	stream := client.Converse(ctx)
	stream.RequestHeader().Set("X-Api-Key", key)
	_ = stream.Send(&greetv1.ConverseRequest{Sentence: "Hello"}) // Receive knows why, if it fails
	_ = stream.CloseRequest()
	res, err := stream.Receive()
	_ = stream.CloseResponse()
	if err != nil {
		return describe(err)
	}
	return res.GetSentence()
}

// describe tells how an RPC failed.
func describe(err error) string {
	reason, _ := auth.ReasonOf(err)
	return fmt.Sprintf("%v, %s", connect.CodeOf(err), reason)
}

// greeter implements GreetService.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Greet(ctx context.Context, _ *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	caller, _ := auth.FromContext(ctx)
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + caller.Subject}), nil
}

func (greeter) Converse(ctx context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	caller, _ := auth.FromContext(ctx)
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&greetv1.ConverseResponse{Sentence: req.GetSentence() + ", " + caller.Subject}); err != nil {
			return err
		}
	}
}
