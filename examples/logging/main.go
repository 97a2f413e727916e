// Command logging serves AccountService, whose messages have secrets, and calls it: a
// record for each RPC, as readable text or with -json as JSON, a stream with payloads
// of which the secrets are redacted, a slow call that is told of while it is in flight,
// and a request that is no RPC.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"

	accountv1 "github.com/interconnect-go/interconnect/examples/gen/account/v1"
	"github.com/interconnect-go/interconnect/examples/gen/account/v1/accountv1connect"
)

// sloth is somebody whose password takes long to check.
const sloth = "sloth"

// newLogger returns a logger for a terminal, or for a machine.
func newLogger(out io.Writer, asJSON bool) *slog.Logger {
	if asJSON {
		return slog.New(slog.NewJSONHandler(out, nil))
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: readable}))
}

// readable leaves out what a person rarely asks for.
func readable(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case "rpc.system.name", "rpc.kind", "connect.stream_type", "connect.protocol", "call.id", "error.type", "rpc.message.type",
		"network.peer.address", "network.peer.port", "rpc.request.wire_bytes", "rpc.response.wire_bytes":
		return slog.Attr{}
	}
	switch a.Value.Kind() {
	case slog.KindTime:
		return slog.String(a.Key, a.Value.Time().Format(time.TimeOnly))
	case slog.KindDuration:
		return slog.Duration(a.Key, a.Value.Duration().Round(time.Millisecond))
	default:
		return a
	}
}

// accounts implements AccountService.
type accounts struct {
	accountv1connect.UnimplementedAccountServiceHandler
}

func (accounts) SignIn(ctx context.Context, req *connect.Request[accountv1.SignInRequest]) (*connect.Response[accountv1.SignInResponse], error) {
	logging.Add(ctx, slog.String("user", req.Msg.GetUser())) // to the record of this RPC
	if req.Msg.GetUser() == sloth {
		select {
		case <-time.After(400 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if req.Msg.GetPassword() != "correct horse" {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("wrong password"))
	}
	return connect.NewResponse(&accountv1.SignInResponse{Token: "battery staple"}), nil
}

func (accounts) Import(ctx context.Context, stream *connect.ClientStream[accountv1.ImportRequest]) (*connect.Response[accountv1.ImportResponse], error) {
	res := &accountv1.ImportResponse{}
	for stream.Receive() {
		res.Count++
	}
	logging.FromContext(ctx).InfoContext(ctx, "imported", "count", res.GetCount()) // a record of its own
	return connect.NewResponse(res), stream.Err()
}

// newServer returns a server with a record for every request.
func newServer(logger *slog.Logger) *http.Server {
	logs := logging.NewInterceptor(logger,
		// The payloads of imports, without what the schema marks by debug_redact.
		logging.WithPayloads(logging.Payloads{First: 2}, accountv1connect.AccountServiceImportProcedure),
		logging.WithSlow(200*time.Millisecond),
		// Whatever is asked for, credentials are not told.
		logging.WithRequestMetadata("x-tenant", "authorization"),
	)
	mux := http.NewServeMux()
	mux.Handle(accountv1connect.NewAccountServiceHandler(accounts{}, connect.WithInterceptors(logs)))
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
	return streamwrap.TuneServer(&http.Server{Handler: engine.Handler(mux)})
}

func main() {
	asJSON := flag.Bool("json", false, "log as JSON")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "logging:", err)
		os.Exit(1)
	}
}

// run is the program: a server, and a client that calls it.
func run(ctx context.Context, out io.Writer, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := newServer(newLogger(out, asJSON))
	go func() { _ = server.Serve(listener) }()
	url := "http://" + listener.Addr().String()
	failed := call(ctx, &http.Client{Transport: streamwrap.NewTransport(nil)}, url)
	return cmp.Or(failed, server.Shutdown(ctx))
}

// call makes the calls.
func call(ctx context.Context, httpClient *http.Client, url string) error {
	client := accountv1connect.NewAccountServiceClient(httpClient, url)
	signIn := func(user, password string) error {
		req := connect.NewRequest(&accountv1.SignInRequest{User: user, Password: password})
		req.Header().Set("X-Tenant", "acme")
		req.Header().Set("Authorization", "Bearer s3cr3t")
		_, err := client.SignIn(ctx, req)
		return err
	}
	if err := signIn("ada", "correct horse"); err != nil {
		return err
	}
	if err := signIn("grace", "a guess"); connect.CodeOf(err) != connect.CodeUnauthenticated {
		return fmt.Errorf("grace got in: %w", err)
	}
	if err := signIn(sloth, "correct horse"); err != nil {
		return err
	}

	stream := client.Import(ctx)
	for _, user := range []string{"ada", "grace", "alan"} {
		account := &accountv1.Account{User: user, Addresses: map[string]*accountv1.Address{
			"home": {City: "London", Street: "12 St James's Square"},
		}}
		if err := stream.Send(&accountv1.ImportRequest{Account: account}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if _, err := stream.CloseAndReceive(); err != nil {
		return err
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/account.v1.AccountService/Import", http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/html") // which is no RPC
	res, err := httpClient.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
