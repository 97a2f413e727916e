package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain is the program, if that has started itself as a server.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-serve") {
		main()
		return
	}
	os.Exit(m.Run())
}

func Example() {
	if err := run(context.Background(), os.Stdout, ""); err != nil {
		os.Exit(1)
	}
	// Output:
	// no -redis: the servers do not know of each other, and each has limits in memory
	// Acme's 12 calls, to both servers, of which are allowed: 10
	// the others: resource_exhausted, for rule calls, come back in 1 to 3 s
	// Globex, at the same time: Hello
	// Acme, with a client that obeys: Hello, later: true
	// Initech's messages: 25, slowly: true
}

// TestRedis runs it with a Redis: the one at REDIS_ADDR, or one of its own.
func TestRedis(t *testing.T) {
	t.Parallel()
	url := "redis://" + os.Getenv("REDIS_ADDR")
	if os.Getenv("REDIS_ADDR") == "" {
		url = startRedis(t)
	}
	var out strings.Builder
	if err := run(t.Context(), &out, url); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.HasPrefix(out.String(), "Acme's 12 calls, to both servers, of which are allowed: 5\n") {
		t.Error(out.String())
	}
}

// TestRunFails checks that what goes wrong is told.
func TestRunFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, io.Discard, ""); err == nil {
		t.Error("success without time for it")
	}
}

func startRedis(t *testing.T) (url string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server found: CI installs one, and the other test needs none")
	}
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // its path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	server := exec.Command(path, "--save", "", "--port", "0", "--unixsocket", socket, "--dir", dir)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		_ = os.RemoveAll(dir)
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return "unix://" + socket
		}
		if time.Now().After(end) {
			t.Fatal("redis-server did not start in 20 s")
		}
	}
}
