package logging

import (
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// maxPlans is how many plans are kept. Programs that make descriptors as they go might
// have more: their plans are made again each time.
const maxPlans = 8192

// redactor knows what must not be in records, and renders the rest. Its plans are found
// by descriptor, not by name: two types of one name may differ.
type redactor struct {
	mode   Redaction
	secret func(protoreflect.FieldDescriptor) bool

	plans sync.Map // of messages, fields that are extensions, and enums
	count atomic.Int64
}

// fieldPlan is what to do with a field.
type fieldPlan struct {
	fd     protoreflect.FieldDescriptor
	name   string // in JSON, with quotes and colon
	secret bool
}

// enumPlan is which values of an enum are secret; nil if none is.
type enumPlan map[protoreflect.EnumNumber]bool

// remember returns the plan of a descriptor, which it makes the first time.
func remember[K comparable, P any](r *redactor, descriptor K, compile func(K) P) P {
	if known, ok := r.plans.Load(descriptor); ok {
		plan, _ := known.(P)
		return plan
	}
	plan := compile(descriptor)
	if r.count.Load() < maxPlans {
		if _, loaded := r.plans.LoadOrStore(descriptor, plan); !loaded {
			r.count.Add(1)
		}
	}
	return plan
}

// message returns the plan of a message's fields, in the order of its descriptor.
func (r *redactor) message(md protoreflect.MessageDescriptor) []fieldPlan {
	return remember(r, md, func(md protoreflect.MessageDescriptor) []fieldPlan {
		fields := md.Fields()
		plan := make([]fieldPlan, fields.Len())
		for i := range plan {
			plan[i] = r.compile(fields.Get(i), fields.Get(i).JSONName())
		}
		return plan
	})
}

// extension returns the plan of a field that is an extension.
func (r *redactor) extension(fd protoreflect.FieldDescriptor) fieldPlan {
	return remember(r, fd, func(fd protoreflect.FieldDescriptor) fieldPlan {
		return r.compile(fd, "["+string(fd.FullName())+"]")
	})
}

func (r *redactor) compile(fd protoreflect.FieldDescriptor, name string) fieldPlan {
	secret := r.isSecret(fd)
	if fd.IsMap() {
		secret = secret || r.isSecret(fd.MapKey()) || r.isSecret(fd.MapValue())
	}
	return fieldPlan{fd: fd, name: strconv.Quote(name) + ":", secret: secret}
}

// enum returns the plan of an enum.
func (r *redactor) enum(ed protoreflect.EnumDescriptor) enumPlan {
	return remember(r, ed, func(ed protoreflect.EnumDescriptor) enumPlan {
		var plan enumPlan
		values := ed.Values()
		for i := range values.Len() {
			if value := values.Get(i); isSecretValue(value) {
				if plan == nil {
					plan = make(enumPlan)
				}
				plan[value.Number()] = true // its aliases too
			}
		}
		return plan
	})
}

// isSecret reports whether a field is to be redacted: its option debug_redact says so,
// another option of it is an enum value that does, or the user.
func (r *redactor) isSecret(fd protoreflect.FieldDescriptor) bool {
	if r.secret != nil && r.secret(fd) {
		return true
	}
	options, ok := fd.Options().(*descriptorpb.FieldOptions)
	if !ok || options == nil {
		return false
	}
	return options.GetDebugRedact() || annotated(options.ProtoReflect()) || unknownSays(fd, options)
}

func isSecretValue(value protoreflect.EnumValueDescriptor) bool {
	options, ok := value.Options().(*descriptorpb.EnumValueOptions)
	return ok && options.GetDebugRedact()
}

// annotated reports whether any enum value in a message has debug_redact.
func annotated(m protoreflect.Message) (found bool) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList():
			for i := range v.List().Len() {
				found = found || marks(fd, v.List().Get(i))
			}
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				found = marks(fd.MapValue(), v)
				return !found
			})
		default:
			found = marks(fd, v)
		}
		return !found
	})
	return found
}

// marks reports whether a value of an option marks fields as secret.
func marks(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	switch fd.Kind() {
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		for i := range values.Len() {
			if value := values.Get(i); value.Number() == v.Enum() && isSecretValue(value) {
				return true
			}
		}
		return false
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return annotated(v.Message())
	default:
		return false
	}
}

// unknownSays is for options that are no part of this program: descriptors made at run
// time import what defines them. One that cannot be understood may say anything: then
// the field is secret.
func unknownSays(fd protoreflect.FieldDescriptor, options *descriptorpb.FieldOptions) bool {
	unknown := options.ProtoReflect().GetUnknown()
	if len(unknown) == 0 {
		return false
	}
	known := new(protoregistry.Types)
	registerOptions(known, fd.ParentFile(), make(map[string]bool))
	resolved := new(descriptorpb.FieldOptions)
	if (proto.UnmarshalOptions{Resolver: known}).Unmarshal(unknown, resolved) != nil {
		return true
	}
	m := resolved.ProtoReflect()
	return resolved.GetDebugRedact() || annotated(m) || len(m.GetUnknown()) > 0
}

// registerOptions registers the options of fields that a file and its imports define.
func registerOptions(types *protoregistry.Types, file protoreflect.FileDescriptor, seen map[string]bool) {
	if file == nil || seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	registerExtensions(types, file.Extensions())
	registerNested(types, file.Messages())
	imports := file.Imports()
	for i := range imports.Len() {
		registerOptions(types, imports.Get(i), seen)
	}
}

func registerNested(types *protoregistry.Types, messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		registerExtensions(types, messages.Get(i).Extensions())
		registerNested(types, messages.Get(i).Messages())
	}
}

func registerExtensions(types *protoregistry.Types, extensions protoreflect.ExtensionDescriptors) {
	const fieldOptions = "google.protobuf.FieldOptions"
	for i := range extensions.Len() {
		if xd := extensions.Get(i); xd.ContainingMessage().FullName() == fieldOptions {
			_ = types.RegisterExtension(dynamicpb.NewExtensionType(xd)) // a second one of a name changes nothing
		}
	}
}
