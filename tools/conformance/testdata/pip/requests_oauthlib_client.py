"""requests-oauthlib and PyJWT's PyJWKClient against the issuer of the environment: each step raises if a check fails."""

import os
import time

import jwt
import requests
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

ISSUER, RESOURCE, SCOPE, API = (os.environ[name] for name in ("ISSUER", "RESOURCE", "SCOPE", "API"))
ID, SECRET = os.environ["PLAIN_ID"], os.environ["PLAIN_SECRET"]

metadata = requests.get(f"{ISSUER}/.well-known/oauth-authorization-server", timeout=10).json()
keys = jwt.PyJWKClient(metadata["jwks_uri"])


def verify(token, audience):
    decoded = jwt.decode_complete(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=["ES256"],
        issuer=ISSUER,
        audience=audience,
        options={"require": ["exp", "client_id"]},
    )
    assert decoded["header"]["typ"] == "at+jwt", decoded
    return decoded["payload"]


# The secret in the header, and in the form.
for arguments in ({"auth": HTTPBasicAuth(ID, SECRET)}, {"client_secret": SECRET, "include_client_id": True}):
    session = OAuth2Session(client=BackendApplicationClient(ID, scope=SCOPE))
    answer = session.fetch_token(metadata["token_endpoint"], resource=RESOURCE, **arguments)
    assert answer["scope"] == [SCOPE] and answer["expires_at"] > time.time() + 3500, answer
    assert verify(answer["access_token"], RESOURCE)["client_id"] == ID
    for audience in ("https://elsewhere.internal", None):
        try:
            verify(answer["access_token"], audience)
        except jwt.InvalidAudienceError:
            pass
        else:
            raise AssertionError(f"a token for {RESOURCE} is accepted as one for {audience}")
    called = session.get(API, timeout=10)
    assert called.status_code == 200, called

# Refusals are understood.
for secret, scope, refusal in (("wrong", SCOPE, InvalidClientError), (SECRET, os.environ["OTHER_SCOPE"], InvalidScopeError)):
    session = OAuth2Session(client=BackendApplicationClient(ID, scope=scope))
    try:
        session.fetch_token(metadata["token_endpoint"], client_secret=secret, include_client_id=True)
    except refusal as error:
        assert error.description, error
    else:
        raise AssertionError("got a token")

# A token of a key that is not the issuer's.
try:
    keys.get_signing_key_from_jwt(os.environ["FORGED"])
except jwt.PyJWKClientError:
    pass
else:
    raise AssertionError("a foreign key is found")
