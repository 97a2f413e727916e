// Package tracing placeholder.
package tracing
