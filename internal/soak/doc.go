// Package soak runs hundreds of RPCs of all kinds at once, with all interceptors on both
// sides, over a network that fails, against servers that are restarted. Clients cancel,
// run out of time, or lose their tokens. What must be true all the same is checked:
//
//   - every RPC, and every attempt at it, ends exactly once on each side;
//   - a client that saw a success, or an error of the server, saw what a handler did;
//   - no message is lost, doubled or out of order in what a client got, or a handler;
//   - no upload that its client has given up is complete to a handler;
//   - there are as many spans and records in the log as RPCs;
//   - in the end slots, goroutines and memory are what they were.
//
// The test is short by default; make soak runs it for SOAK (10m).
package soak
