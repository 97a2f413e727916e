package logging

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

const (
	// maxMetadata is how many headers a record has in either direction.
	maxMetadata = 32

	// maxHeader is how much of a header's value it has.
	maxHeader = 256
)

// WithRequestMetadata has records tell the values of request headers,
// "rpc.request.metadata.<name>", up to 256 bytes of each. A name may begin or end with
// "*": "x-*" means all headers that begin with "x-", of which there are up to 32 in a
// record. Several values are joined with ", ". Values of headers that hold secrets are
// redacted: see [WithDeniedMetadata]. It accumulates, and panics if a name is empty or
// has a "*" elsewhere. By default no header is told.
func WithRequestMetadata(names ...string) Option {
	p, err := newPatterns(names)
	if err != nil {
		panic(fmt.Sprintf("logging: WithRequestMetadata: %v", err))
	}
	return option(func(c *config) { c.request.allow(p) })
}

// WithResponseMetadata is [WithRequestMetadata] for the headers and trailers of
// responses, "rpc.response.metadata.<name>".
func WithResponseMetadata(names ...string) Option {
	p, err := newPatterns(names)
	if err != nil {
		panic(fmt.Sprintf("logging: WithResponseMetadata: %v", err))
	}
	return option(func(c *config) { c.response.allow(p) })
}

// WithDeniedMetadata adds to the headers whose values are never told, whatever is asked
// for. By default these are authorization, proxy-authorization, cookie, set-cookie,
// x-api-key, *-token, *-secret, *-password, *-key and *-bin.
func WithDeniedMetadata(names ...string) Option {
	p, err := newPatterns(names)
	if err != nil {
		panic(fmt.Sprintf("logging: WithDeniedMetadata: %v", err))
	}
	return option(func(c *config) { c.denied = append(c.denied, p...) })
}

func deniedByDefault() patterns {
	denied, _ := newPatterns([]string{
		"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key",
		"*-token", "*-secret", "*-password", "*-key", "*-bin",
	})
	return denied
}

// pattern matches names of headers, in lower case.
type pattern struct{ name, prefix, suffix string }

type patterns []pattern

func newPatterns(names []string) (patterns, error) {
	var all patterns
	for _, name := range names {
		lower := strings.ToLower(name)
		prefix, suffix, wild := strings.Cut(lower, "*")
		switch {
		case lower == "", strings.Contains(suffix, "*"), prefix != "" && suffix != "":
			return nil, fmt.Errorf(`%q is not a name that may begin or end with "*"`, name)
		case wild:
			all = append(all, pattern{prefix: prefix, suffix: suffix})
		default:
			all = append(all, pattern{name: lower})
		}
	}
	return all, nil
}

func (p patterns) match(name string) bool {
	return slices.ContainsFunc(p, func(p pattern) bool {
		if p.name != "" {
			return p.name == name
		}
		return strings.HasPrefix(name, p.prefix) && strings.HasSuffix(name, p.suffix)
	})
}

// metadata is which headers of one direction are told.
type metadata struct {
	prefix string // of keys
	exact  []header
	wild   patterns
}

// header is one that is named.
type header struct{ canonical, name, key string }

func (m *metadata) allow(all patterns) {
	for _, p := range all {
		if p.name != "" {
			m.exact = append(m.exact, header{http.CanonicalHeaderKey(p.name), p.name, m.prefix + p.name})
		} else {
			m.wild = append(m.wild, p)
		}
	}
}

func (m *metadata) any() bool { return len(m.exact)+len(m.wild) > 0 }

// collect appends those of the headers that are to be told. Of a response, they come
// from several places.
func (m *metadata) collect(attrs []slog.Attr, h http.Header, c *config) []slog.Attr {
	for _, e := range m.exact {
		if values := h[e.canonical]; len(values) > 0 {
			attrs = c.appendHeader(attrs, e.key, e.name, values)
		}
	}
	if len(m.wild) == 0 {
		return attrs
	}
	names := make([]string, 0, maxMetadata)
	for name := range h {
		if lower := strings.ToLower(name); m.wild.match(lower) && !m.names(lower) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if m.told(attrs) >= maxMetadata {
			break
		}
		lower := strings.ToLower(name)
		attrs = c.appendHeader(attrs, m.prefix+clip(lower, maxHeader), lower, h[name])
	}
	return attrs
}

// told returns how many headers of this direction are told.
func (m *metadata) told(attrs []slog.Attr) (n int) {
	for i := range attrs {
		if strings.HasPrefix(attrs[i].Key, m.prefix) {
			n++
		}
	}
	return n
}

// names reports whether a header is told by its name.
func (m *metadata) names(name string) bool {
	return slices.ContainsFunc(m.exact, func(e header) bool { return e.name == name })
}

func (c *config) appendHeader(attrs []slog.Attr, key, name string, values []string) []slog.Attr {
	if slices.ContainsFunc(attrs, func(a slog.Attr) bool { return a.Key == key }) {
		return attrs // from another place where it may be
	}
	value := values[0]
	if len(values) > 1 {
		value = strings.Join(values, ", ")
	}
	if !c.denied.match(name) {
		return append(attrs, slog.String(key, clip(value, maxHeader)))
	}
	if value, ok := c.redactor.mode.text(value); ok {
		attrs = append(attrs, slog.String(key, value))
	}
	return attrs
}
