package admin

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// masked gives the fields of message that a mask asks to change, from among those that can be (AIP-161). Without a mask
// they are those that are set; "*" is all. A field that the server alone writes is left out without a word, so that what
// was read can be changed and sent back (AIP-203); one that the message does not have is an error.
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
