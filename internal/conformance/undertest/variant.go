//go:build conformance

package main

import (
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// variant is what stands around connect in one run of the suite.
type variant struct {
	option   connect.Option // of the client and of the handler
	observer *observer      // sees nothing if it is not in the option

	// What stands between connect and net/http.
	wrapClient  func(connect.HTTPClient) connect.HTTPClient
	wrapHandler func(http.Handler) http.Handler
}

// variantNames are the names that newVariant knows.
func variantNames() string {
	return strings.Join([]string{"none", "interceptor", "engine", "both"}, ", ")
}

// newVariant returns the variant with a name of variantNames.
func newVariant(name string) (*variant, error) {
	v := &variant{
		option:      connect.WithOptions(),
		observer:    newObserver(),
		wrapClient:  func(c connect.HTTPClient) connect.HTTPClient { return c },
		wrapHandler: func(h http.Handler) http.Handler { return h },
	}
	switch name {
	case "none":
	case "interceptor":
		v.option = connect.WithInterceptors(v.observer.interceptor())
	case "engine":
		v.useEngine()
	case "both":
		v.useEngine(v.observer.interceptor())
	default:
		return nil, fmt.Errorf("variant %q is none of %s", name, variantNames())
	}
	return v, nil
}

// useEngine puts an Engine between connect and net/http, and behind the
// interceptors.
func (v *variant) useEngine(outside ...connect.Interceptor) {
	engine := streamwrap.NewEngine()
	v.wrapHandler = engine.Handler
	v.wrapClient = func(client connect.HTTPClient) connect.HTTPClient {
		return engine.HTTPClient(client)
	}
	v.option = connect.WithInterceptors(append(outside, engine)...)
}
