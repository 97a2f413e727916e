package streamwraptest_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// What Run does to a failing test is seen from outside: this test binary runs
// itself, with the name of one of these in the environment.
const helperEnv = "STREAMWRAPTEST_HELPER"

func helpers() map[string]func(t *testing.T) {
	return map[string]func(t *testing.T){
		"eof": func(t *testing.T) {
			t.Helper()
			streamwraptest.Run(t, func() connect.Interceptor {
				return each(connHooks{receive: func(inner receiver, msg any) error {
					if err := inner.Receive(msg); !errors.Is(err, io.EOF) {
						return err
					}
					return nil
				}})
			})
		},
		"race": func(t *testing.T) {
			t.Helper()
			streamwraptest.Run(t, func() connect.Interceptor {
				return &mutant{conn: func() connHooks {
					messages := 0
					return connHooks{
						send:    func(inner sender, msg any) error { messages++; return inner.Send(msg) },
						receive: func(inner receiver, msg any) error { messages++; return inner.Receive(msg) },
					}
				}}
			})
		},
		"stuck": func(t *testing.T) {
			t.Helper()
			streamwraptest.CheckRule(t, "guard", time.Second, func() connect.Interceptor {
				return &mutant{conn: func() connHooks {
					var mu sync.Mutex
					return connHooks{
						receive: func(inner receiver, msg any) error {
							mu.Lock()
							defer mu.Unlock()
							return inner.Receive(msg)
						},
						closeResponse: func(inner connect.StreamingClientConn) error {
							mu.Lock()
							defer mu.Unlock()
							return inner.CloseResponse()
						},
					}
				}}
			})
		},
	}
}

func TestHelper(t *testing.T) {
	name := os.Getenv(helperEnv)
	if name == "" {
		t.Skip("not a test: what the tests below run in a process of its own")
	}
	helpers()[name](t)
}

// runHelper returns the output of a helper, which must fail.
func runHelper(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self, "-test.run=^TestHelper$", "-test.v")
	command.Env = append(os.Environ(), helperEnv+"="+name)
	output, err := command.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed {
		t.Errorf("helper %q: %v, want failure", name, err)
	}
	return string(output)
}

func checkOutput(t *testing.T, output string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(output, s) {
			t.Errorf("%q is not in the output:\n%s", s, output)
		}
	}
}

func TestRunFailsTheRulesSubtest(t *testing.T) {
	t.Parallel()
	checkOutput(t, runHelper(t, "eof"),
		"--- PASS: TestHelper/messages",
		"--- FAIL: TestHelper/eof",
		"at the end of the stream (\"unknown: EOF\") Receive returned <nil>, want an error that is io.EOF by errors.Is",
		"Why it matters: the clean end of a stream is an error",
		"--- SKIP: TestHelper/wire",
		"needs rule \"eof\", which is broken",
	)
}

func TestRunMakesDataRacesShow(t *testing.T) {
	t.Parallel()
	if !streamwraptest.RaceEnabled {
		t.Skip("it is about reports of the race detector, which this build is without")
	}
	checkOutput(t, runHelper(t, "race"), "WARNING: DATA RACE", "--- FAIL: TestHelper/concurrency")
}

// A mutex that is held during I/O stops the clock of a bubble. The concurrency
// rule keeps the others from that, unless a test picks them with -run.
func TestRunDoesNotHangForEver(t *testing.T) {
	t.Parallel()
	checkOutput(t, runHelper(t, "stuck"),
		`streamwraptest: rule "guard"`, "stuck for 1s", "sync.Mutex.Lock", "process_test.go")
}
