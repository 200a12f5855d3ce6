"""Checks access tokens (RFC 9068) with the issuer's key set, over HTTP and gRPC."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
import jwt
from fastapi import HTTPException, Request
from fastapi.security import SecurityScopes
from google.protobuf.descriptor import ServiceDescriptor

from grantor.v1 import rule_pb2

log = logging.getLogger("uvicorn.error")

# The default algorithms of the issuer. A list is essential: a token must not choose.
ALGORITHMS = ["ES256", "RS256"]


@dataclass(frozen=True)
class Caller:
    client_id: str
    scopes: frozenset[str]


class InvalidToken(Exception):
    """The caller has no token, or one that is not for this API. For the log alone."""


class InsufficientScope(Exception):
    """The caller's token is valid and lacks a scope."""


class KeysUnavailable(Exception):
    """The issuer's keys cannot be fetched, so no token can be checked."""


class Verifier:
    """Checks tokens locally. Safe for threads."""

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer, self._audience = issuer, audience
        # Keeps the keys for five minutes, and fetches them if a token names a new one.
        self._keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)

    async def verify(
        self, authorization: Sequence[str], scopes: frozenset[str]
    ) -> Caller:
        """Return the caller, by all values of its Authorization header."""
        if len(authorization) != 1:
            raise InvalidToken("want one Authorization header")
        scheme, _, token = authorization[0].partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidToken("want a bearer token")
        # In a thread, because the key may have to be fetched.
        caller = await asyncio.to_thread(self._decode, token.strip())
        if missing := scopes - caller.scopes:
            raise InsufficientScope(" ".join(sorted(missing)))
        return caller

    def _decode(self, token: str) -> Caller:
        try:
            decoded = jwt.decode_complete(
                token,
                self._keys.get_signing_key_from_jwt(token),
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                # The issuer dates some tokens up to 30 s ahead, so "iat" is no bound.
                options={"require": ["exp", "sub", "client_id"], "verify_iat": False},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise KeysUnavailable(str(error)) from error
        except jwt.PyJWTError as error:
            raise InvalidToken(str(error)) from error
        header, claims = decoded["header"], decoded["payload"]
        if header.get("typ") != "at+jwt":
            raise InvalidToken("not an access token")
        if "cnf" in claims:
            raise InvalidToken("bound to a key, which is not checked here")
        scopes = frozenset(claims.get("scope", "").split())
        return Caller(claims["client_id"], scopes)


class HTTPGuard:
    """A dependency for routes: Security(HTTPGuard(verifier), scopes=["api1"])."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def __call__(self, request: Request, required: SecurityScopes) -> Caller:
        try:
            return await self._verifier.verify(
                request.headers.getlist("authorization"), frozenset(required.scopes)
            )
        except InvalidToken as error:
            log.warning("refused %s: %s", request.url.path, error)
            challenge = 'Bearer error="invalid_token"'
            raise self._refusal(401, challenge) from error
        except InsufficientScope as error:
            challenge = f'Bearer error="insufficient_scope", scope="{error}"'
            raise self._refusal(403, challenge) from error
        except KeysUnavailable as error:
            log.error("%s", error)
            raise HTTPException(503) from error

    @staticmethod
    def _refusal(status: int, challenge: str) -> HTTPException:
        return HTTPException(status, headers={"WWW-Authenticate": challenge})


caller: ContextVar[Caller] = ContextVar("caller")
"""The caller of a gRPC method."""


class GRPCGuard(grpc.aio.ServerInterceptor):
    """Checks each call by the rule that its method has in the proto."""

    def __init__(self, verifier: Verifier, *services: ServiceDescriptor) -> None:
        self._verifier = verifier
        self._scopes = {
            f"/{service.full_name}/{method.name}": frozenset(
                method.GetOptions().Extensions[rule_pb2.rule].scopes
            )
            for service in services
            for method in service.methods
        }
        if unruled := [name for name, scopes in self._scopes.items() if not scopes]:
            raise ValueError(f"methods without scopes in their rules: {unruled}")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        details = handler_call_details
        metadata = details.invocation_metadata or ()
        authorization = [str(v) for k, v in metadata if k == "authorization"]
        try:
            if (scopes := self._scopes.get(details.method)) is None:
                return refuse(grpc.StatusCode.PERMISSION_DENIED, "no rule")
            caller.set(await self._verifier.verify(authorization, scopes))
        except InvalidToken as error:
            log.warning("refused %s: %s", details.method, error)
            return refuse(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
        except InsufficientScope as error:
            return refuse(grpc.StatusCode.PERMISSION_DENIED, f"missing scope: {error}")
        except KeysUnavailable as error:
            log.error("%s", error)
            return refuse(grpc.StatusCode.UNAVAILABLE, "tokens cannot be checked now")
        return await continuation(details)


def refuse(code: grpc.StatusCode, details: str) -> Any:
    async def abort(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        await context.abort(code, details)

    return grpc.unary_unary_rpc_method_handler(abort)
