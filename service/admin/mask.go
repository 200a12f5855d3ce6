package admin

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// masked returns the fields of message that a request changes, which are those of changeable that mask names (AIP-161).
// Without a mask it returns those that are set; "*" stands for all. It ignores fields that only the server writes, so
// that a caller can change and send back what it has read (AIP-203). A field that message does not have is an error.
func masked(message proto.Message, mask *fieldmaskpb.FieldMask, changeable ...string) ([]string, error) {
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
