package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/interconnect-go/interconnect/internal/procedure"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// Rule is a condition on callers. The zero Rule lets nobody pass.
type Rule struct {
	kind   ruleKind
	values []string
}

type ruleKind uint8

const (
	nobody ruleKind = iota
	anyone
	authenticated
	scopes
	roles
)

// Anyone lets everybody pass whom the [Authenticator] accepts, anonymous callers too.
func Anyone() Rule { return Rule{kind: anyone} }

// Authenticated lets everybody pass who is not anonymous.
func Authenticated() Rule { return Rule{kind: authenticated} }

// Scopes lets those pass who have all of the scopes.
func Scopes(all ...string) Rule { return Rule{scopes, slices.Clone(all)} }

// Roles lets those pass who have all of the roles.
func Roles(all ...string) Rule { return Rule{roles, slices.Clone(all)} }

// Nobody lets nobody pass.
func Nobody() Rule { return Rule{} }

// check returns why an identity does not pass.
func (r Rule) check(id *Identity) error {
	if r.kind > anyone && id.Method == "anonymous" {
		return ErrMissing
	}
	switch r.kind {
	case anyone, authenticated:
		return nil
	case scopes:
		if !id.HasScopes(r.values...) {
			return &rejection{reason: ReasonScope, scopes: r.values}
		}
		return nil
	case roles:
		if !id.HasRoles(r.values...) {
			return ErrDenied
		}
		return nil
	default:
		return ErrDenied
	}
}

// Policy says who may do what: nobody may do anything that it does not name. It is
// complete before the first RPC, and safe for concurrent use from then on.
type Policy struct {
	rules   procedure.Table[[]Rule]
	options func(protoreflect.MethodDescriptor) (Rule, bool)
	require func(context.Context, *Identity, *streamwrap.Call) error

	found sync.Map // of options: procedure to *Rule, nil for none
}

// NewPolicy returns a policy by which nobody may do anything.
func NewPolicy() *Policy { return &Policy{rules: make(procedure.Table[[]Rule])} }

// Allow lets callers use a procedure, "/pkg.Service/Method", or all procedures of a
// service that have no rules of their own, "/pkg.Service/", who pass all of the rules.
// It returns p. It panics if the pattern has another form or comes twice, or without a
// rule.
func (p *Policy) Allow(pattern string, rules ...Rule) *Policy {
	if len(rules) == 0 {
		panic("auth: Policy.Allow: no rule for " + pattern)
	}
	if err := p.rules.Add(pattern, slices.Clone(rules)); err != nil {
		panic("auth: Policy.Allow: " + err.Error())
	}
	return p
}

// FromOptions takes the rules of procedures from their schema, usually from an option
// of one's own, where Allow does not name the procedure itself. It comes before the
// rules of the service. It returns p.
func (p *Policy) FromOptions(rule func(protoreflect.MethodDescriptor) (Rule, bool)) *Policy {
	if rule == nil {
		panic("auth: Policy.FromOptions: nil function")
	}
	p.options = rule
	return p
}

// Require asks a function, such as a policy engine's, for what the rules let pass. Its
// error refuses the RPC: one of this package's or a *[connect.Error] as it is, any
// other one as [ErrUnavailable]. It returns p.
func (p *Policy) Require(permits func(ctx context.Context, id *Identity, call *streamwrap.Call) error) *Policy {
	if permits == nil {
		panic("auth: Policy.Require: nil function")
	}
	p.require = permits
	return p
}

// decide returns why a caller may not make an RPC.
func (p *Policy) decide(ctx context.Context, id *Identity, call *streamwrap.Call) error {
	rules, ok := p.rulesOf(call)
	if !ok {
		return &rejection{reason: ReasonNoPolicy}
	}
	for _, rule := range rules {
		if err := rule.check(id); err != nil {
			return err
		}
	}
	if p.require == nil {
		return nil
	}
	return p.ask(ctx, id, call)
}

// ask calls Require's function.
func (p *Policy) ask(ctx context.Context, id *Identity, call *streamwrap.Call) (err error) {
	defer recovered(&err, ReasonUnavailable)
	return understood(ctx, p.require(ctx, id, call), ReasonUnavailable)
}

// rulesOf returns the rules of an RPC: those of its procedure, of its schema, or of its
// service.
func (p *Policy) rulesOf(call *streamwrap.Call) ([]Rule, bool) {
	name := call.Procedure()
	if p.options == nil {
		return p.rules.Find(name)
	}
	if _, named := p.rules[name]; !named {
		if rules := p.fromSchema(name, call.Spec()); rules != nil {
			return rules, true
		}
	}
	return p.rules.Find(name)
}

// fromSchema returns the rule that a procedure's schema has, nil for none.
func (p *Policy) fromSchema(name string, spec connect.Spec) []Rule {
	if found, ok := p.found.Load(name); ok {
		rules, _ := found.([]Rule)
		return rules
	}
	var rules []Rule
	if method, ok := spec.Schema.(protoreflect.MethodDescriptor); ok {
		if rule, has := p.options(method); has {
			rules = []Rule{rule}
		}
	}
	p.found.Store(name, rules)
	return rules
}

// Check returns an error that names every method of the services for which the policy
// has no rule, and every rule that belongs to none of them; nil if there are neither.
// Call it when the program starts, with the descriptors of all services that the
// policy is for: a procedure that is misspelled is one that nobody may use, or worse,
// that others may.
func (p *Policy) Check(services ...protoreflect.ServiceDescriptor) error {
	var errs []error
	unused := maps.Clone(p.rules)
	for _, service := range services {
		prefix := "/" + string(service.FullName()) + "/"
		_, whole := p.rules[prefix]
		delete(unused, prefix)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			name := prefix + string(method.Name())
			_, named := p.rules[name]
			delete(unused, name)
			optional := false
			if p.options != nil {
				_, optional = p.options(method)
			}
			if named && optional {
				errs = append(errs, fmt.Errorf("%s has a rule and an option", name))
			}
			if !named && !optional && !whole {
				errs = append(errs, fmt.Errorf("%s has no rule", name))
			}
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(unused)) {
		errs = append(errs, fmt.Errorf("%s is no method of these services", pattern))
	}
	return errors.Join(errs...)
}
