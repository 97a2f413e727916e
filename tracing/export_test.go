package tracing

import "go.opentelemetry.io/otel/attribute"

// These are for tests.
const (
	SchemaURL    = schemaURL
	OldSchemaURL = oldSchemaURL
	MaxMethods   = maxMethods
)

// Names are the names of attributes that OpenTelemetry's conventions have.
func Names() map[string]attribute.Key {
	return map[string]attribute.Key{
		"system": systemKey, "method": methodKey, "original method": originalKey, "status": statusCodeKey, "error": errorTypeKey,
		"address": serverAddressKey, "port": serverPortKey, "peer address": peerAddressKey,
		"peer port": peerPortKey, "direction": directionKey, "http status": httpStatusKey,
	}
}

// OldNames are the names of attributes that the older conventions have.
func OldNames() map[string]attribute.Key {
	return map[string]attribute.Key{
		"system": oldSystemKey, "service": oldServiceKey, "method": oldMethodKey,
		"grpc status": oldGRPCStatusKey, "connect code": oldConnectCodeKey,
	}
}
