package admin

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/service/registry"
)

// fieldNames returns the names of the fields.
func fieldNames[T any](fields []registry.Field[T]) []string {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return names
}

// masked returns the fields of message that a mask selects, of those that can be changed (AIP-161). Without a mask they are
// those that are set; "*" selects all. Output-only fields are ignored, so that a message that was read can be changed and
// sent back (AIP-203). A field that the message does not have is an error.
func masked(message proto.Message, mask *fieldmaskpb.FieldMask, changeable []string) ([]string, error) {
	if slices.Equal(mask.GetPaths(), []string{"*"}) {
		return changeable, nil
	}
	fields := message.ProtoReflect().Descriptor().Fields()
	var chosen []string
	add := func(name string) {
		if slices.Contains(changeable, name) && !slices.Contains(chosen, name) {
			chosen = append(chosen, name)
		}
	}
	for _, path := range mask.GetPaths() {
		if fields.ByTextName(path) == nil {
			return nil, invalid("update_mask", "names a field that there is not")
		}
		add(path)
	}
	if len(mask.GetPaths()) == 0 {
		message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			add(field.TextName())
			return true
		})
	}
	return chosen, nil
}
