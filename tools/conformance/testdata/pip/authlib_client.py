"""Authlib against the issuer of the environment: each step raises if the library or a check fails."""

import os

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from authlib.oidc.discovery import OpenIDProviderMetadata
from authlib.oidc.discovery import get_well_known_url as get_openid_url

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


for method in metadata["token_endpoint_auth_methods_supported"]:
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
print("Authlib", "yes", "yes", sep="\t")
