package conntest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// connect2 returns the two ends of a connection with small buffers.
func connect2(t *testing.T, limit int) (*network, net.Conn, net.Conn) {
	t.Helper()
	n := newNetwork(limit)
	var server net.Conn
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		server, _ = n.Accept()
	}()
	client, err := n.dial(t.Context(), "tcp", "anything:80")
	if err != nil {
		t.Fatal(err)
	}
	<-accepted
	return n, server, client
}

func TestConnBuffersWithinItsLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, server, client := connect2(t, 8)
		if n, err := client.Write([]byte("12345678")); n != 8 || err != nil {
			t.Fatalf("Write() = %d, %v; want all of it buffered", n, err)
		}
		var wrote bool
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := client.Write([]byte("9abc")); n != 4 || err != nil {
				t.Errorf("blocked Write() = %d, %v", n, err)
			}
			wrote = true
			_ = client.Close()
		})
		synctest.Wait()
		if wrote {
			t.Error("Write returned although the buffer is full")
		}
		got, err := io.ReadAll(server)
		if string(got) != "123456789abc" || err != nil {
			t.Errorf("ReadAll() = %q, %v", got, err)
		}
		wg.Wait()
	})
}

func TestConnKeepsWritesApart(t *testing.T) {
	t.Parallel()
	_, server, client := connect2(t, 3)
	var wg sync.WaitGroup
	for _, c := range []byte("abcd") {
		wg.Go(func() {
			if _, err := client.Write(bytes.Repeat([]byte{c}, 10)); err != nil {
				t.Error(err)
			}
		})
	}
	got := make([]byte, 40)
	if _, err := io.ReadFull(server, got); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for i := 0; i < 40; i += 10 {
		if want := bytes.Repeat(got[i:i+1], 10); !bytes.Equal(got[i:i+10], want) {
			t.Fatalf("writes are mixed: %q", got)
		}
	}
}

func TestConnDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, server, client := connect2(t, 1)
		start := time.Now()
		_ = client.SetDeadline(start.Add(3 * time.Second))
		_, err := client.Read(make([]byte, 1))
		checkTimeout(t, err, time.Since(start), 3*time.Second)

		_ = client.SetWriteDeadline(start.Add(5 * time.Second))
		n, err := client.Write([]byte("xyz"))
		checkTimeout(t, err, time.Since(start), 5*time.Second)
		if n != 1 {
			t.Errorf("Write wrote %d bytes, want the 1 that fits", n)
		}

		// A deadline in the past wakes a blocked Read, which is how net/http
		// interrupts itself; a new one makes the connection usable again.
		go func() {
			time.Sleep(time.Second)
			_ = client.SetReadDeadline(time.Unix(1, 0))
		}()
		_ = client.SetReadDeadline(time.Time{})
		_, err = client.Read(make([]byte, 1))
		checkTimeout(t, err, time.Since(start), 6*time.Second)
		_ = client.SetReadDeadline(start.Add(time.Hour))
		if _, err := server.Write([]byte("a")); err != nil {
			t.Error(err)
		}
		if n, err := client.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("Read() = %d, %v after the deadline was moved", n, err)
		}
	})
}

func checkTimeout(t *testing.T, err error, after, want time.Duration) {
	t.Helper()
	netErr, ok := errors.AsType[net.Error](err)
	if !ok || !netErr.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || after != want {
		t.Errorf("got %v after %v, want a timeout after %v", err, after, want)
	}
}

func TestConnClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, server, client := connect2(t, 100)
		_, _ = client.Write([]byte("last words"))
		var blocked error
		go func() { _, blocked = client.Read(make([]byte, 1)) }()
		synctest.Wait()
		_ = client.Close()
		_ = client.Close()
		synctest.Wait()
		if !errors.Is(blocked, net.ErrClosed) {
			t.Errorf("own blocked Read: %v, want net.ErrClosed", blocked)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("own Write: %v, want net.ErrClosed", err)
		}
		if got, err := io.ReadAll(server); string(got) != "last words" || err != nil {
			t.Errorf("peer's ReadAll() = %q, %v", got, err)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("peer's Write: %v, want EPIPE", err)
		}
		_ = server.Close()
		if len(n.links) != 0 {
			t.Errorf("the network holds %d connections, want 0", len(n.links))
		}
	})
}

func TestConnHalfClose(t *testing.T) {
	t.Parallel()
	_, server, client := connect2(t, 100)
	_ = client.(*conn).CloseWrite()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read() = %v, want a bare io.EOF", err)
	}
	_, _ = server.Write([]byte("still here"))
	_ = server.Close()
	if got, err := io.ReadAll(client); string(got) != "still here" || err != nil {
		t.Errorf("ReadAll() = %q, %v", got, err)
	}
}

func TestConnAddresses(t *testing.T) {
	t.Parallel()
	_, server, client := connect2(t, 100)
	if got, want := server.RemoteAddr().String(), "192.0.2.2:49152"; got != want {
		t.Errorf("server's RemoteAddr() = %s, want %s", got, want)
	}
	if got, want := client.RemoteAddr().String(), "192.0.2.1:80"; got != want {
		t.Errorf("client's RemoteAddr() = %s, want %s", got, want)
	}
	if client.LocalAddr().String() != server.RemoteAddr().String() || server.LocalAddr().String() != client.RemoteAddr().String() {
		t.Error("the ends disagree about their addresses")
	}
}

func TestNetworkCloseRefusesDials(t *testing.T) {
	t.Parallel()
	n := newNetwork(1)
	_ = n.Close()
	_ = n.Close()
	if _, err := n.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
	if _, err := n.dial(t.Context(), "tcp", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want ECONNREFUSED", err)
	}
	if len(n.links) != 0 {
		t.Errorf("the network holds %d connections, want 0", len(n.links))
	}
}
