"""grpcio, with stubs made from proto/ by grpcio-tools, against the issuer and the API of the environment."""

import json
import os
import urllib.parse
from base64 import b64encode

import grpc
from grantor.v1 import token_service_pb2 as pb
from grantor.v1 import token_service_pb2_grpc

ID, SECRET, SCOPE, RESOURCE = (os.environ[name] for name in ("CLIENT_ID", "CLIENT_SECRET", "SCOPE", "RESOURCE"))

issuer = token_service_pb2_grpc.TokenServiceStub(grpc.insecure_channel(os.environ["ISSUER_GRPC"]))
grant = {"grant_type": "client_credentials", "scope": SCOPE, "resource": [RESOURCE]}
credentials = {"client_id": ID, "client_secret": SECRET}
quoted = ":".join(urllib.parse.quote_plus(part) for part in (ID, SECRET))
basic = (("authorization", "Basic " + b64encode(quoted.encode()).decode()),)

# The credentials in the message, and in the metadata.
for message, metadata in ((grant | credentials, ()), (grant, basic)):
    answer = issuer.IssueToken(pb.IssueTokenRequest(**message), metadata=metadata, timeout=10)
    assert (answer.token_type, answer.scope) == ("Bearer", SCOPE), answer
    token = answer.access_token
    state = issuer.IntrospectToken(pb.IntrospectTokenRequest(token=token, **credentials), timeout=10)
    assert state.active and state.client_id == ID, state


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() is code, error
    else:
        raise AssertionError(f"not refused with {code}")


refused(lambda: issuer.IssueToken(pb.IssueTokenRequest(**grant | credentials | {"client_secret": "wrong"}), timeout=10), grpc.StatusCode.UNAUTHENTICATED)
refused(lambda: issuer.IssueToken(pb.IssueTokenRequest(**grant | credentials | {"scope": os.environ["OTHER_SCOPE"]}), timeout=10), grpc.StatusCode.INVALID_ARGUMENT)

# The token as call credentials of a connection to an API that interceptors/verify guards. grpcio sends them over TLS or to this
# machine alone.
channel = grpc.secure_channel(
    os.environ["API_GRPC"],
    grpc.composite_channel_credentials(grpc.local_channel_credentials(), grpc.access_token_call_credentials(token)),
)
list_invoices = channel.unary_unary("/invoices.v1.InvoiceService/ListInvoices")
list_invoices(b"", timeout=10)

# Pushed revocation: the API follows the issuer, so the next calls are refused soon.
issuer.RevokeToken(pb.RevokeTokenRequest(token=token, **credentials), timeout=10)
assert not issuer.IntrospectToken(pb.IntrospectTokenRequest(token=token, **credentials), timeout=10).active
for _ in range(1000):
    try:
        list_invoices(b"", timeout=10)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error
        break
else:
    raise AssertionError("the revoked token is accepted")
keys = issuer.GetKeySet(pb.GetKeySetRequest(), timeout=10)
print(json.dumps({"keys": len(keys.keys)}))
