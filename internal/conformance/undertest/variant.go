//go:build conformance

package main

import (
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"
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
func variantNames() string { return strings.Join([]string{"none", "interceptor"}, ", ") }

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
	default:
		return nil, fmt.Errorf("variant %q is none of %s", name, variantNames())
	}
	return v, nil
}
