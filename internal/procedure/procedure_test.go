package procedure_test

import (
	"testing"

	"github.com/interconnect-go/interconnect/internal/procedure"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]bool{
		"/a.B/C": true, "/a.B/": true,
		"": false, "/": false, "//": false, "a.B/C": false, "/C": false, "//C": false, "/a.B": false,
		"/a.B/C/": false, "/x/a.B/C": false, "/x/a.B/": false, "///": false, "//a.B/C": false, "/a.B//": false,
	} {
		if err := procedure.Check(pattern); (err == nil) != want {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	table := make(procedure.Table[string])
	for _, pattern := range []string{"/a.B/", "/a.B/C"} {
		if err := table.Add(pattern, pattern); err != nil {
			t.Error(err)
		}
		if table.Add(pattern, "again") == nil {
			t.Errorf("%s is there twice", pattern)
		}
	}
	if table.Add("a.B", "") == nil {
		t.Error("a pattern that is none")
	}
	for name, want := range map[string]string{"/a.B/C": "/a.B/C", "/a.B/D": "/a.B/", "/a.C/C": "", "": "", "C": ""} {
		if got, ok := table.Find(name); got != want || ok != (want != "") {
			t.Errorf("%q has %q, %v", name, got, ok)
		}
	}
}
