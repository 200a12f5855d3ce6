"""Authlib against the issuer of the environment: each step raises if the library or a check fails."""

import json
import os
import time

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from authlib.oidc.discovery import OpenIDProviderMetadata
from authlib.oidc.discovery import get_well_known_url as get_openid_url
from joserfc.jwk import ECKey

ISSUER, RESOURCE, SCOPE = (os.environ[name] for name in ("ISSUER", "RESOURCE", "SCOPE"))

if os.environ["DOCUMENT"] == "openid-configuration":
    url, model = get_openid_url(ISSUER, external=True), OpenIDProviderMetadata
else:
    url, model = get_well_known_url(ISSUER, external=True), AuthorizationServerMetadata
metadata = model(requests.get(url, timeout=10).json())
metadata.validate()
assert metadata["issuer"] == ISSUER


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return requests.get(metadata["jwks_uri"], timeout=10).json()


def validate(token, resource, scope):
    validator = Validator(ISSUER, resource)
    validator.validate_token(validator.authenticate_token(token), [scope], None)


for method in ("client_secret_basic", "client_secret_post"):
    assert method in metadata["token_endpoint_auth_methods_supported"]
    session = OAuth2Session(
        os.environ["PLAIN_ID"], os.environ["PLAIN_SECRET"], token_endpoint_auth_method=method, scope=SCOPE
    )
    answer = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    assert answer["scope"] == SCOPE
    validate(answer["access_token"], RESOURCE, SCOPE)
    try:
        validate(answer["access_token"], "https://elsewhere.internal", SCOPE)
    except InvalidTokenError:
        pass
    else:
        raise AssertionError("a token for another resource is accepted")

# By a key: its assertions are of the type JWT, addressed to the token endpoint, and live for an hour, which is too long.
jwk = json.loads(os.environ["KEY_JWK"])
older, strict = os.environ["OLDER_ID"], os.environ["KEYED_ID"]
for client_id, typ, claims, accepted in (
    (older, "JWT", {"exp": int(time.time()) + 60}, True),
    (strict, "client-authentication+jwt", {"exp": int(time.time()) + 60, "aud": ISSUER}, True),
    (strict, "JWT", {"exp": int(time.time()) + 60}, False),
    (older, "JWT", {}, False),
):
    session = OAuth2Session(
        client_id, ECKey.import_key(jwk), token_endpoint_auth_method="private_key_jwt", scope=SCOPE
    )
    headers = {"kid": jwk["kid"], "typ": typ}
    session.register_client_auth_method(PrivateKeyJWT(metadata["token_endpoint"], claims, headers, "ES256"))
    try:
        answer = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    except OAuthError as error:
        assert not accepted and error.error == "invalid_client", error
    else:
        assert accepted
        validate(answer["access_token"], RESOURCE, SCOPE)
print("Authlib", "yes", "yes", sep="\t")
