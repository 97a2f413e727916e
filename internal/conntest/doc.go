// Package conntest runs real HTTP servers and clients in memory, for tests.
//
//	srv := conntest.Start(t, conntest.Config{Transport: conntest.H2C})
//	clients := srv.Clients(conntest.GRPC.Option())
//	reply := clients.Do(t.Context(), connect.StreamTypeBidi,
//		conntest.WithFaults(conntest.Fail(connect.CodeUnavailable, "boom").After(2)),
//		"one", "two", "three")
//
// [Start] serves an echo service of all four RPC kinds ([Service]) over a
// [Transport]; everything above the bytes is net/http and connect as in
// production. [Matrix] runs a test over every combination worth testing, each
// in its own bubble if asked. [Server.Calls] tells what the handlers truly saw.
//
// # Bubbles
//
// Everything works inside [testing/synctest] bubbles: call [Start] inside the
// bubble and nothing else. The cleanup it registers ends connections, handlers
// and clients, so that the bubble ends. Three rules remain:
//
//   - A goroutine that waits for a [sync.Mutex] is not durably blocked, so fake
//     time stands still. net/http's HTTP/2 client writes to its connection with
//     a mutex held. Sockets therefore buffer more than one HTTP/2 connection may
//     have in flight; shrink HTTP/2 with [Config.Window], which leaves sockets
//     alone.
//   - Time ends when the test function returns. A goroutine of the test that
//     sleeps then, or that polls like [http.Server.Shutdown], must be waited for.
//   - A handler that ignores its context must be one that [Server.Release] or
//     the end of the test releases, such as [IgnoreContext].
//
// # Faults
//
// A test asks for misbehaviour where it is convenient: in the request's headers
// ([WithFaults], [Fault.Add]), for the next calls whoever makes them
// ([Server.Inject]), by replacing a handler ([Service]), or in the network
// ([Server.CutConnections], [Server.BlackHole], [Server.SlowReader],
// [Server.RefuseDials]).
package conntest
