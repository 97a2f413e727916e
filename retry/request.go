package retry

import (
	"net/http"
	"reflect"

	"connectrpc.com/connect"
)

// copies reports whether requests can be copied: whether connect's are what
// copyRequest takes them for. If not, attempts share the request, and one that was
// given up is not followed by another: net/http may still read its headers.
var copies = copyable()

// copyRequest returns a copy of a unary request with headers of its own. connect has
// no way to make one, since its requests are generic and their fields private, and
// the transport of an attempt that was given up reads the headers of the first while
// connect writes those of the next.
func copyRequest(req connect.AnyRequest, header http.Header) connect.AnyRequest {
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
	copied := copyRequest(original, http.Header{"Key": {"copy"}})
	typed, isRequest := copied.(*connect.Request[message])
	return isRequest && typed != original && typed.Msg == original.Msg &&
		typed.Header().Get("Key") == "copy" && original.Header().Get("Key") == "original" &&
		typed.Spec() == original.Spec() && typed.Peer().Addr == original.Peer().Addr
}

// methodOf copies the HTTP method of the attempt that won to the caller's request,
// of which connect's GET support tells.
func methodOf(winner, original connect.AnyRequest) {
	if !copies || winner == original {
		return
	}
	from := reflect.ValueOf(winner).Elem().FieldByName("method")
	to := reflect.ValueOf(original).Elem().FieldByName("method")
	if from.IsValid() && to.IsValid() && from.Kind() == reflect.String {
		reflect.NewAt(to.Type(), to.Addr().UnsafePointer()).Elem().SetString(from.String())
	}
}
