// Package gen is where run.sh generates the messages and the service of the
// conformance suite, from the protos that its module ships. Nothing of that is
// committed: this file is all there is in a fresh checkout.
package gen
