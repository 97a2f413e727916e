package logging_test

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
)

// What a schema in a .proto file would say, of which the root module has none:
//
//	enum Level { PUBLIC = 0; PRIVATE = 1 [debug_redact = true]; }
//	extend google.protobuf.FieldOptions { Level level = 50000; Label label = 50001; }
//	message Label { repeated Level levels = 1; }
//
//	message Record {
//	  string open = 1;
//	  string secret = 2 [debug_redact = true];
//	  bytes secret_bytes = 3 [debug_redact = true];
//	  ... (one field of each kind, see below)
//	}
const (
	levelField = 50000
	labelField = 50001
)

type fieldOption func(*descriptorpb.FieldDescriptorProto)

func debugRedact(f *descriptorpb.FieldDescriptorProto) {
	f.Options = &descriptorpb.FieldOptions{DebugRedact: new(true)}
}

// annotated sets an option of a field as unknown bytes, as descriptors have it that a
// program loads: [(level) = PRIVATE], or [(label) = {levels: [PUBLIC, PRIVATE]}].
func annotated(option []byte) fieldOption {
	return func(f *descriptorpb.FieldDescriptorProto) {
		f.Options = new(descriptorpb.FieldOptions)
		f.Options.ProtoReflect().SetUnknown(option)
	}
}

func repeated(f *descriptorpb.FieldDescriptorProto) {
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
}

func inOneof(f *descriptorpb.FieldDescriptorProto) { f.OneofIndex = new(int32(0)) }

func extending(message string) fieldOption {
	return func(f *descriptorpb.FieldDescriptorProto) { f.Extendee = &message }
}

func field(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, typeName string, opts ...fieldOption) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{
		Name: &name, Number: &number, Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	if typeName != "" {
		f.TypeName = &typeName
	}
	for _, opt := range opts {
		opt(f)
	}
	return f
}

// mapEntry returns the type of a map's entries.
func mapEntry(name string, key, value *descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{
		Name: &name, Field: []*descriptorpb.FieldDescriptorProto{key, value},
		Options: &descriptorpb.MessageOptions{MapEntry: new(true)},
	}
}

// schema is the file with message Record. It is registered, so that an Any finds it.
var schema = sync.OnceValue(func() protoreflect.FileDescriptor {
	const (
		text    = descriptorpb.FieldDescriptorProto_TYPE_STRING
		raw     = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		number  = descriptorpb.FieldDescriptorProto_TYPE_INT64
		enum    = descriptorpb.FieldDescriptorProto_TYPE_ENUM
		message = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
		group   = descriptorpb.FieldDescriptorProto_TYPE_GROUP
		record  = ".logtest.Record"
		level   = ".logtest.Level"
		options = ".google.protobuf.FieldOptions"
	)
	file := &descriptorpb.FileDescriptorProto{
		Name: new("logtest.proto"), Package: new("logtest"), Syntax: new("proto2"),
		Dependency: []string{
			"google/protobuf/descriptor.proto", "google/protobuf/any.proto", "google/protobuf/wrappers.proto",
			"google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "google/protobuf/duration.proto",
		},
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name: new("Level"), Options: &descriptorpb.EnumOptions{AllowAlias: new(true)},
			Value: []*descriptorpb.EnumValueDescriptorProto{
				{Name: new("PUBLIC"), Number: new(int32(0))},
				{Name: new("HIDDEN_ALIAS"), Number: new(int32(1))},
				{Name: new("PRIVATE"), Number: new(int32(1)), Options: &descriptorpb.EnumValueOptions{DebugRedact: new(true)}},
			},
		}},
		Extension: []*descriptorpb.FieldDescriptorProto{
			field("level", levelField, enum, level, extending(options)),
			field("label", labelField, message, ".logtest.Label", extending(options)),
			field("extra", 1000, text, "", extending(record)),
			field("secret_extra", 1001, text, "", extending(record), debugRedact),
		},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: new("Label"), Field: []*descriptorpb.FieldDescriptorProto{field("levels", 1, enum, level, repeated)}},
			{
				Name: new("Record"),
				Field: []*descriptorpb.FieldDescriptorProto{
					field("open", 1, text, ""),
					field("secret", 2, text, "", debugRedact),
					field("secret_bytes", 3, raw, "", debugRedact),
					field("secret_number", 4, number, "", debugRedact),
					field("secrets", 5, text, "", repeated, debugRedact),
					field("secret_record", 6, message, record, debugRedact),
					field("secret_map", 7, message, record+".SecretMapEntry", repeated, debugRedact),
					field("secret_wrapper", 8, message, ".google.protobuf.StringValue", debugRedact),
					field("secret_any", 9, message, ".google.protobuf.Any", debugRedact),
					field("by_level", 10, text, "", annotated([]byte{0x80, 0xb5, 0x18, 1})),
					field("by_label", 11, text, "", annotated([]byte{0x8a, 0xb5, 0x18, 4, 8, 0, 8, 1})),
					field("by_public_level", 12, text, "", annotated([]byte{0x80, 0xb5, 0x18, 0})),
					field("by_unknown", 13, text, "", annotated([]byte{0x90, 0xb5, 0x18, 0})),
					field("level", 14, enum, level),
					field("levels", 15, enum, level, repeated),
					field("level_map", 16, message, record+".LevelMapEntry", repeated),
					field("child", 20, message, record),
					field("children", 21, message, record, repeated),
					field("by_name", 22, message, record+".ByNameEntry", repeated),
					field("any", 23, message, ".google.protobuf.Any"),
					field("anys", 24, message, ".google.protobuf.Any", repeated),
					field("wrapper", 25, message, ".google.protobuf.StringValue"),
					field("struct", 26, message, ".google.protobuf.Struct"),
					field("at", 27, message, ".google.protobuf.Timestamp"),
					field("took", 28, message, ".google.protobuf.Duration"),
					field("one", 30, text, "", inOneof),
					field("secret_one", 31, text, "", inOneof, debugRedact),
					field("record_one", 32, message, record, inOneof),
					field("knot", 33, group, record+".Knot"),
					field("numbers", 34, number, "", repeated),
					field("open_bytes", 35, raw, ""),
					field("double", 36, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, ""),
					field("bool", 37, descriptorpb.FieldDescriptorProto_TYPE_BOOL, ""),
				},
				OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: new("choice")}},
				NestedType: []*descriptorpb.DescriptorProto{
					mapEntry("SecretMapEntry", field("key", 1, text, ""), field("value", 2, text, "")),
					mapEntry("LevelMapEntry", field("key", 1, text, ""), field("value", 2, enum, level)),
					mapEntry("ByNameEntry", field("key", 1, text, ""), field("value", 2, message, record)),
					{Name: new("Knot"), Field: []*descriptorpb.FieldDescriptorProto{
						field("open", 1, text, ""), field("secret", 2, text, "", debugRedact),
					}},
				},
				ExtensionRange: []*descriptorpb.DescriptorProto_ExtensionRange{{Start: new(int32(1000)), End: new(int32(1010))}},
			},
		},
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	if err := protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(fd.Messages().ByName("Record"))); err != nil {
		panic(err)
	}
	return fd
})

// linked is a message with a field that is annotated by an option that the program
// knows.
var linked = sync.OnceValue(func() protoreflect.MessageDescriptor {
	set := func(name string, value protoreflect.Value) fieldOption {
		return func(f *descriptorpb.FieldDescriptorProto) {
			xt := dynamicpb.NewExtensionType(schema().Extensions().ByName(protoreflect.Name(name)))
			f.Options = new(descriptorpb.FieldOptions)
			f.Options.ProtoReflect().Set(xt.TypeDescriptor(), value)
		}
	}
	labels := dynamicpb.NewMessage(schema().Messages().ByName("Label"))
	levels := labels.Mutable(labels.Descriptor().Fields().ByName("levels")).List()
	levels.Append(protoreflect.ValueOfEnum(0))
	levels.Append(protoreflect.ValueOfEnum(1))
	const text = descriptorpb.FieldDescriptorProto_TYPE_STRING
	file := &descriptorpb.FileDescriptorProto{
		Name: new("linked.proto"), Package: new("logtest"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Linked"), Field: []*descriptorpb.FieldDescriptorProto{
			field("open", 1, text, "", set("level", protoreflect.ValueOfEnum(0))),
			field("by_level", 2, text, "", set("level", protoreflect.ValueOfEnum(1))),
			field("by_label", 3, text, "", set("label", protoreflect.ValueOfMessage(labels))),
		}}},
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	return fd.Messages().Get(0)
})

func recordType() protoreflect.MessageDescriptor { return schema().Messages().ByName("Record") }

// record returns a Record with fields set.
func record(set func(r *dynamic)) *dynamicpb.Message {
	r := &dynamic{dynamicpb.NewMessage(recordType())}
	set(r)
	return r.Message
}

// dynamic is a message whose fields are set by name.
type dynamic struct{ *dynamicpb.Message }

func (d *dynamic) field(name string) protoreflect.FieldDescriptor {
	return d.Descriptor().Fields().ByName(protoreflect.Name(name))
}

// set sets a field; messages are converted to what the field holds.
func (d *dynamic) set(name string, value any) *dynamic {
	fd := d.field(name)
	d.Set(fd, valueFor(fd, value))
	return d
}

// add appends to a list.
func (d *dynamic) add(name string, values ...any) *dynamic {
	fd := d.field(name)
	for _, value := range values {
		d.Mutable(fd).List().Append(valueFor(fd, value))
	}
	return d
}

// put puts a value into a map with keys that are texts.
func (d *dynamic) put(name, key string, value any) *dynamic {
	fd := d.field(name)
	d.Mutable(fd).Map().Set(protoreflect.ValueOfString(key).MapKey(), valueFor(fd.MapValue(), value))
	return d
}

// extend sets an extension.
func (d *dynamic) extend(name, value string) *dynamic {
	xt := dynamicpb.NewExtensionType(schema().Extensions().ByName(protoreflect.Name(name)))
	d.Set(xt.TypeDescriptor(), protoreflect.ValueOfString(value))
	return d
}

func valueFor(fd protoreflect.FieldDescriptor, value any) protoreflect.Value {
	m, ok := value.(proto.Message)
	if !ok {
		return protoreflect.ValueOf(value)
	}
	encoded, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	to := dynamicpb.NewMessage(fd.Message())
	if err := proto.Unmarshal(encoded, to); err != nil {
		panic(err)
	}
	return protoreflect.ValueOfMessage(to)
}
