package tracing

import "go.opentelemetry.io/otel/attribute"

// SchemaURL and MaxMethods are for tests.
const (
	SchemaURL  = schemaURL
	MaxMethods = maxMethods
)

// Names are the names of attributes that OpenTelemetry's conventions have.
func Names() map[string]attribute.Key {
	return map[string]attribute.Key{
		"system": systemKey, "method": methodKey, "status": statusCodeKey, "error": errorTypeKey,
		"address": serverAddressKey, "port": serverPortKey, "peer address": peerAddressKey,
		"peer port": peerPortKey, "direction": directionKey, "http status": httpStatusKey,
	}
}
