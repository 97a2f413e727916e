// Package request copies connect's unary requests, for interceptors that send one more
// than once or must not change the caller's.
package request

import (
	"net/http"
	"reflect"

	"connectrpc.com/connect"
)

// Copyable reports whether requests can be copied: whether connect's are what Copy
// takes them for.
var Copyable = copyable()

// Copy returns a copy of a unary request with headers of its own. connect has
// no way to make one, since its requests are generic and their fields private, and
// the transport of an attempt that was given up reads the headers of the first while
// connect writes those of the next.
func Copy(req connect.AnyRequest, header http.Header) connect.AnyRequest {
	from := reflect.ValueOf(req)
	to := reflect.New(from.Type().Elem())
	to.Elem().Set(from.Elem())
	field := to.Elem().FieldByName("header")
	reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem().Set(reflect.ValueOf(header))
	copied, _ := to.Interface().(connect.AnyRequest)
	return copied
}

// copyable tries it.
func copyable() (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	type message struct{ text string }
	original := connect.NewRequest(&message{"text"})
	original.Header().Set("Key", "original")
	copied := Copy(original, http.Header{"Key": {"copy"}})
	typed, isRequest := copied.(*connect.Request[message])
	return isRequest && typed != original && typed.Msg == original.Msg &&
		typed.Header().Get("Key") == "copy" && original.Header().Get("Key") == "original" &&
		typed.Spec() == original.Spec() && typed.Peer().Addr == original.Peer().Addr
}

// TakeMethod copies the HTTP method of the attempt that won to the caller's request,
// of which connect's GET support tells.
func TakeMethod(winner, original connect.AnyRequest) {
	if !Copyable || winner == original {
		return
	}
	from := reflect.ValueOf(winner).Elem().FieldByName("method")
	to := reflect.ValueOf(original).Elem().FieldByName("method")
	if from.IsValid() && to.IsValid() && from.Kind() == reflect.String {
		reflect.NewAt(to.Type(), to.Addr().UnsafePointer()).Elem().SetString(from.String())
	}
}
