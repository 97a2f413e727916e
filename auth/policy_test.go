package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// schema returns a service with methods; a method's option is whether it is deprecated
// (for admins) or without side effects (for anyone).
func schema(tb testing.TB, service string, methods map[string]*descriptorpb.MethodOptions) protoreflect.ServiceDescriptor {
	tb.Helper()
	pkg, name, _ := strings.Cut(service, ".")
	s := &descriptorpb.ServiceDescriptorProto{Name: &name}
	for method, options := range methods {
		s.Method = append(s.Method, &descriptorpb.MethodDescriptorProto{
			Name: proto.String(method), InputType: proto.String("." + pkg + ".M"), OutputType: proto.String("." + pkg + ".M"), Options: options,
		})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String(service + ".proto"), Package: &pkg, Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M")}},
		Service:     []*descriptorpb.ServiceDescriptorProto{s},
	}, &protoregistry.Files{})
	if err != nil {
		tb.Fatal(err)
	}
	return file.Services().Get(0)
}

func deprecated() *descriptorpb.MethodOptions {
	return &descriptorpb.MethodOptions{Deprecated: proto.Bool(true)}
}

// adminsOnly is a rule for methods that are deprecated.
func adminsOnly(m protoreflect.MethodDescriptor) (auth.Rule, bool) {
	return auth.Roles("admin"), m.Options().(*descriptorpb.MethodOptions).GetDeprecated()
}

// who accepts everybody with the scopes and roles that the request has.
func who(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	return &auth.Identity{
		Subject: "ada", Method: r.Header.Get("Method"),
		Scopes: strings.Fields(r.Header.Get("Scopes")), Roles: strings.Fields(r.Header.Get("Roles")),
	}, nil
}

// TestRules: every rule, alone and together, and the order of procedures and services.
func TestRules(t *testing.T) {
	t.Parallel()
	policy := auth.NewPolicy().
		Allow("/p.S/", auth.Roles("user")).
		Allow("/p.S/Open", auth.Anyone()).
		Allow("/p.S/Known", auth.Authenticated()).
		Allow("/p.S/Scoped", auth.Scopes("a", "b")).
		Allow("/p.S/Both", auth.Scopes("a"), auth.Roles("r", "s")).
		Allow("/p.S/Nobody", auth.Nobody()).
		Allow("/p.S/Zero", auth.Rule{}).
		Allow("/p.S/Mixed", auth.Anyone(), auth.Nobody())
	for _, tt := range []struct {
		procedure, scopes, roles, method string
		want                             auth.Reason
		required                         string
	}{
		{"Open", "", "", "", "", ""},
		{"Open", "", "", "anonymous", "", ""},
		{"Known", "", "", "", "", ""},
		{"Known", "", "", "anonymous", auth.ReasonMissing, ""},
		{"Scoped", "a b c", "", "", "", ""},
		{"Scoped", "a", "", "", auth.ReasonScope, "a b"},
		{"Scoped", "a b", "", "anonymous", auth.ReasonMissing, ""},
		{"Both", "a", "r s", "", "", ""},
		{"Both", "a", "r", "", auth.ReasonDenied, ""},
		{"Both", "b", "r s", "", auth.ReasonScope, "a"},
		{"Nobody", "a b", "admin user", "", auth.ReasonDenied, ""},
		{"Zero", "a b", "admin user", "", auth.ReasonDenied, ""},
		{"Mixed", "", "", "", auth.ReasonDenied, ""},
		{"Other", "", "user", "", "", ""},
		{"Other", "", "", "", auth.ReasonDenied, ""},
		{"open", "", "", "", auth.ReasonDenied, ""},
	} {
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(who), auth.WithPolicy(policy))
		_, err := ask(t, i, http.Header{"Scopes": {tt.scopes}, "Roles": {tt.roles}, "Method": {tt.method}}, "/p.S/"+tt.procedure)
		if reasonOf(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		if tt.required != "" {
			challenge := `Bearer realm="rpc", error="insufficient_scope", scope="` + tt.required + `"`
			_, all := err, details(t, err)[0].(*errdetails.ErrorInfo).GetMetadata()
			if diff := cmp.Diff(map[string]string{"requiredScopes": tt.required}, all); diff != "" {
				t.Error(diff)
			}
			served := streamwraptest.ServeUnary(t.Context(), i, streamwraptest.RPC{
				Spec: connect.Spec{Procedure: "/p.S/" + tt.procedure}, Header: http.Header{"Scopes": {tt.scopes}, "Roles": {tt.roles}},
			}, conntest.Text(""), func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				return nil, nil
			})
			if got := served.Header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("challenge %s", got)
			}
		}
	}
	// Another service, also one whose name begins alike, has no rules.
	i := auth.NewServerInterceptor(auth.AuthenticatorFunc(who), auth.WithPolicy(policy))
	for _, procedure := range []string{"/p.S2/Open", "/p/Open", "/q.S/Open", "/p.S.T/Open"} {
		if _, err := ask(t, i, http.Header{"Roles": {"user"}}, procedure); reasonOf(err) != auth.ReasonNoPolicy {
			t.Errorf("%s: %v", procedure, err)
		}
	}
}

// TestFromOptions: a rule from the schema comes after the procedure's own and before
// the service's, and gates know it.
func TestFromOptions(t *testing.T) {
	t.Parallel()
	service := schema(t, "conntest.Echo", map[string]*descriptorpb.MethodOptions{
		"Marked": deprecated(), "Named": deprecated(), "Plain": nil,
	})
	var asked atomic.Int64
	policy := auth.NewPolicy().Allow("/conntest.Echo/", auth.Anyone()).Allow("/conntest.Echo/Named", auth.Anyone()).
		FromOptions(func(m protoreflect.MethodDescriptor) (auth.Rule, bool) { asked.Add(1); return adminsOnly(m) })
	i := auth.NewServerInterceptor(auth.AuthenticatorFunc(who), auth.WithPolicy(policy))
	config := behind(i, conntest.Config{})
	config.Register = func(mux *http.ServeMux, opts ...connect.HandlerOption) {
		for _, name := range []string{"Marked", "Named", "Plain", "Bare"} {
			procedure, opts := "/conntest.Echo/"+name, opts
			if name != "Bare" { // which is one without a schema
				opts = append(slices.Clone(opts), connect.WithSchema(service.Methods().ByName(protoreflect.Name(name))))
			}
			mux.Handle(procedure, connect.NewUnaryHandler(procedure,
				func(_ context.Context, r *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return connect.NewResponse(r.Msg), nil
				}, opts...))
		}
	}
	srv := conntest.Start(t, config)
	for range 3 {
		for _, tt := range []struct {
			name, roles string
			want        auth.Reason
		}{{"Marked", "", auth.ReasonDenied}, {"Marked", "admin", ""}, {"Named", "", ""}, {"Plain", "", ""}, {"Bare", "", ""}} {
			client := connect.NewClient[conntest.Message, conntest.Message](srv.Client(), srv.URL+"/conntest.Echo/"+tt.name)
			r := connect.NewRequest(conntest.Text("one"))
			r.Header().Set("Roles", tt.roles)
			if _, err := client.CallUnary(t.Context(), r); reasonOf(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
	if asked.Load() > 2 {
		t.Errorf("the options were read %d times", asked.Load())
	}
}

// TestRequire: what a policy engine says decides, and one that is broken lets nobody in.
func TestRequire(t *testing.T) {
	t.Parallel()
	own := connect.NewError(connect.CodeFailedPrecondition, errors.New("pay first"))
	for _, tt := range []struct {
		name   string
		f      func(context.Context) error
		reason auth.Reason
		code   connect.Code
	}{
		{"passes", func(context.Context) error { return nil }, "", 0},
		{"denies", func(context.Context) error { return secretly(auth.ErrDenied) }, auth.ReasonDenied, connect.CodePermissionDenied},
		{"plain error", func(context.Context) error { return errors.New(private) }, auth.ReasonUnavailable, connect.CodeUnavailable},
		{"panic", func(context.Context) error { panic(private) }, auth.ReasonUnavailable, connect.CodeUnavailable},
		{"connect error", func(context.Context) error { return own }, "", connect.CodeFailedPrecondition},
		{"its own timeout", func(context.Context) error { return context.DeadlineExceeded }, auth.ReasonUnavailable, connect.CodeUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var seen events
				var asked atomic.Int64
				policy := auth.NewPolicy().Allow("/conntest.v1.Echo/", auth.Scopes("a")).Require(
					func(ctx context.Context, id *auth.Identity, call *streamwrap.Call) error {
						asked.Add(1)
						if id.Subject != "ada" || call.Service() != "conntest.v1.Echo" {
							t.Errorf("%+v, %s", id, call.Procedure())
						}
						return tt.f(ctx)
					})
				srv := c.Start(t, behind(auth.NewServerInterceptor(auth.AuthenticatorFunc(who), auth.WithPolicy(policy), seen.option()), conntest.Config{}))
				err := c.Clients(srv).Do(t.Context(), c.Kind, http.Header{"Scopes": {"a"}}, "one").Err
				if (tt.code == 0) != (err == nil) {
					t.Fatal(err)
				}
				if err != nil {
					wantReason(t, err, tt.reason, tt.code)
					if strings.Contains(err.Error(), "secret") {
						t.Error(err)
					}
					if e := seen.all()[0]; e.Identity == nil || e.Err == nil {
						t.Errorf("event %+v", e)
					}
				}
				// What the rules refuse is not its business.
				err = c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err
				wantReason(t, err, auth.ReasonScope, connect.CodePermissionDenied)
				if n := asked.Load(); n != 1 {
					t.Errorf("it was asked %d times", n)
				}
			})
		})
	}
}

// TestCheck: what a policy has no rule for, and what it has one for that is nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	one := schema(t, "p.One", map[string]*descriptorpb.MethodOptions{"A": nil, "B": deprecated()})
	two := schema(t, "p.Two", map[string]*descriptorpb.MethodOptions{"C": nil, "D": nil})
	for _, tt := range []struct {
		name   string
		policy *auth.Policy
		want   []string
	}{
		{"empty", auth.NewPolicy(), []string{"/p.One/A has no rule", "/p.One/B has no rule", "/p.Two/C has no rule", "/p.Two/D has no rule"}},
		{"services", auth.NewPolicy().Allow("/p.One/", auth.Anyone()).Allow("/p.Two/", auth.Nobody()), nil},
		{"misspelled", auth.NewPolicy().Allow("/p.One/", auth.Anyone()).Allow("/p.Two/", auth.Anyone()).
			Allow("/p.One/a", auth.Anyone()).Allow("/p.Three/", auth.Anyone()).Allow("/p.Two/*", auth.Anyone()), []string{
			"/p.One/a is no method of these services", "/p.Three/ is no method of these services", "/p.Two/* is no method of these services",
		}},
		{"options", auth.NewPolicy().FromOptions(adminsOnly).Allow("/p.Two/", auth.Anyone()), []string{"/p.One/A has no rule"}},
		{"both", auth.NewPolicy().FromOptions(adminsOnly).Allow("/p.One/", auth.Anyone()).Allow("/p.One/B", auth.Anyone()).
			Allow("/p.Two/", auth.Anyone()), []string{"/p.One/B has a rule and an option"}},
	} {
		var got []string
		if err := tt.policy.Check(one, two); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		sortStrings := cmp.Transformer("set", func(s []string) map[string]bool {
			set := make(map[string]bool)
			for _, line := range s {
				set[line] = true
			}
			return set
		})
		if diff := cmp.Diff(tt.want, got, sortStrings); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestPolicyIsConcurrent: many RPCs ask one policy at once.
func TestPolicyIsConcurrent(t *testing.T) {
	t.Parallel()
	policy := auth.NewPolicy().FromOptions(adminsOnly).Allow("/p.S/", auth.Authenticated())
	i := auth.NewServerInterceptor(auth.AuthenticatorFunc(who), auth.WithPolicy(policy))
	var g sync.WaitGroup
	for n := range 8 {
		g.Go(func() {
			for range 50 {
				if _, err := ask(t, i, nil, fmt.Sprintf("/p.S/M%d", n%4)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
}
