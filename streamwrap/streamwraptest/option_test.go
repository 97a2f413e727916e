package streamwraptest_test

import (
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

func TestWithoutLeavesOutOneRule(t *testing.T) {
	t.Parallel()
	recovering := &mutant{handler: recovering(func(any) error { return connect.NewError(connect.CodeInternal, nil) })}
	broken, skipped := streamwraptest.Broken(t, func() connect.Interceptor { return recovering },
		streamwraptest.Without("panic", "it recovers panics"))
	if len(broken) > 0 || len(skipped) != 1 || skipped["panic"] != "it recovers panics" {
		t.Errorf("broken: %v, skipped: %v", broken, skipped)
	}
}

func TestMisuseOfOptionsPanics(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]func(){
		`Without: no rule "speed"`:                func() { streamwraptest.Without("speed", "it is slow") },
		`Without: no reason to leave out "panic"`: func() { streamwraptest.Without("panic", "") },
		"streamwraptest: Run: nil newInterceptor": func() { streamwraptest.Run(t, nil) },
		"WrapStreamingClient returned a nil conn": openNil,
	} {
		func() {
			defer func() {
				if p, _ := recover().(string); !strings.Contains(p, want) {
					t.Errorf("panic %q, want %q in it", p, want)
				}
			}()
			f()
		}()
	}
}

func openNil() {
	broken := brokenOpens()[0].mutant
	streamwraptest.OpenStream(nil, broken, streamwraptest.NewClientConn(streamwraptest.Script{})) //nolint:staticcheck // a nil context: nobody looks at it, the mutant returns at once
}

// TestDocumentationListsTheRules keeps the package comment complete and in order.
func TestDocumentationListsTheRules(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for line := range strings.Lines(string(doc)) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "//   - "), ":"); ok && strings.HasPrefix(line, "//   - ") {
			listed = append(listed, name)
		}
	}
	if got, want := strings.Join(listed, " "), strings.Join(streamwraptest.Rules(), " "); got != want {
		t.Errorf("doc.go lists the rules\n%s\nwant\n%s", got, want)
	}
}

type closing struct {
	connect.Interceptor

	stop chan struct{}
}

func (c *closing) Close() error {
	close(c.stop)
	return nil
}

func TestRunClosesInterceptors(t *testing.T) {
	t.Parallel()
	broken, _ := streamwraptest.Broken(t, func() connect.Interceptor {
		c := &closing{pass, make(chan struct{})}
		go func() { <-c.stop }() // as a janitor would
		return c
	})
	if len(broken) > 0 {
		t.Errorf("broken: %v", broken)
	}
}

func TestRunReportsGoroutinesOfTheInterceptor(t *testing.T) {
	t.Parallel()
	broken, _ := streamwraptest.Broken(t, func() connect.Interceptor {
		go func() { select {} }()
		return pass
	})
	if len(broken) != 1 || !strings.Contains(broken["goroutines"], "option_test.go") {
		t.Errorf("broken: %v", broken)
	}
}
