package broadcast

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// encoded is a response that has been encoded once, for all followers. The message consists of the encoding alone, as fields
// that it does not interpret, so that any codec, compressor, interceptor or stats handler can use it as a message.
type encoded struct {
	*grantorv1.WatchRevocationsResponse

	// data is the encoding. Its buffers are not counted, so that any number of streams can hold them.
	data mem.BufferSlice
}

// encode encodes a response.
func encode(response *grantorv1.WatchRevocationsResponse) (*encoded, error) {
	data, err := proto.Marshal(response)
	if err != nil {
		return nil, err
	}
	message := &grantorv1.WatchRevocationsResponse{}
	message.ProtoReflect().SetUnknown(data)
	return &encoded{message, mem.BufferSlice{mem.SliceBuffer(data)}}, nil
}

// ServerOption returns the option by which a gRPC server sends what a [Hub] has encoded without copying it. With another codec,
// each stream holds a copy of what it has yet to write. Other messages are encoded as by default.
func ServerOption() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)})
}

// codec is the default codec of gRPC, except for what is encoded already.
type codec struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return e.data, nil
	}
	return c.CodecV2.Marshal(v)
}
