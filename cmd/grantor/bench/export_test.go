package bench

type (
	Load      = load
	Target    = target
	Caller    = caller
	Result    = result
	Latencies = latencies
)

const (
	OperationIssue      = operationIssue
	OperationIntrospect = operationIntrospect
	WireREST            = wireREST
	MaxBody             = maxBody
)
