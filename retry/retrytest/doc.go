// Package retrytest helps to test that RPCs survive a network that fails: it has a
// network in memory whose faults are scripted, and a recorder that checks that what
// was tried again arrived as it was sent.
//
//	recorder := retrytest.NewRecorder()
//	mux.Handle(pingv1connect.NewPingHandler(ping, connect.WithInterceptors(recorder)))
//	network := retrytest.NewNetwork(t, mux)
//	client := pingv1connect.NewPingClient(network.Client(), network.URL(),
//		connect.WithInterceptors(recorder, retries))
//
//	network.Inject(retrytest.RefuseDial(), retrytest.Reset(0), retrytest.GoAway())
//	… // make RPCs
//	recorder.Check(t)
//
// It works inside of testing/synctest bubbles: create the Network in the bubble.
package retrytest
