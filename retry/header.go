package retry

import (
	"maps"
	"net/http"
	"slices"
)

// edit is what somebody changed in headers: protocols, and interceptors further in,
// have headers of their own in each attempt's, such as the time that is left.
type edit struct {
	set     http.Header
	deleted []string
}

// editOf returns what was changed since before.
func editOf(before, after http.Header) edit {
	e := edit{set: make(http.Header)}
	for key, values := range after {
		if !slices.Equal(before[key], values) {
			e.set[key] = slices.Clone(values)
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			e.deleted = append(e.deleted, key)
		}
	}
	return e
}

// apply makes the same changes to other headers.
func (e edit) apply(h http.Header) {
	maps.Copy(h, e.set.Clone())
	for _, key := range e.deleted {
		delete(h, key)
	}
}
