package streamwrap

import (
	"reflect"
	"testing"
)

// TestSizes: what an idle stream holds fits the allocator's size class that it was made
// for. One field more may cost each stream 128 bytes. Beyond 512 bytes the allocator
// adds eight.
func TestSizes(t *testing.T) {
	t.Parallel()
	if reflect.TypeFor[uintptr]().Size() != 8 {
		t.Skip("for 64 bits")
	}
	for _, tt := range []struct {
		of    reflect.Type
		class uintptr
	}{
		{reflect.TypeFor[clientExchange](), 480},
		{reflect.TypeFor[engineConn](), 96},
		{reflect.TypeFor[outbound](), 144},
		{reflect.TypeFor[serverExchange](), 576},
		{reflect.TypeFor[with[clientStream, one]](), 768},
		{reflect.TypeFor[with[clientStream, few]](), 896},
		{reflect.TypeFor[with[clientStream, some]](), 1024},
		{reflect.TypeFor[with[clientStream, more]](), 1152},
		{reflect.TypeFor[with[clientStream, many]](), 1280},
		{reflect.TypeFor[with[handlerStream, few]](), 768},
		{reflect.TypeFor[with[handlerStream, some]](), 896},
		{reflect.TypeFor[with[handlerStream, more]](), 1024},
		{reflect.TypeFor[with[handlerStream, many]](), 1152},
	} {
		size := tt.of.Size()
		if size > 512 {
			size += 8
		}
		if size > tt.class {
			t.Errorf("%v takes %d bytes, want at most %d", tt.of, size, tt.class)
		}
	}
}
