"""Access tokens by client credentials (RFC 6749 section 4.4), over HTTP and gRPC."""

import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

log = logging.getLogger(__name__)


class TokenError(Exception):
    """The issuer is unreachable or refuses the client."""


@dataclass(frozen=True)
class Token:
    value: str
    renew_at: float
    expires_at: float


def request_token(
    http: httpx.Client, issuer: str, client_id: str, client_secret: str, scope: str
) -> Token:
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": client_secret,
        "scope": scope,
    }
    now = time.monotonic()
    try:
        response = http.post(f"{issuer}/connect/token", data=form)
        response.raise_for_status()
        answer = response.json()
        lifetime = float(answer["expires_in"])
        return Token(answer["access_token"], now + 0.8 * lifetime, now + lifetime)
    except httpx.HTTPStatusError as error:
        raise TokenError(f"{error}: {error.response.text}") from error
    except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
        raise TokenError(f"no token from {issuer}: {error!r}") from error


class TokenSource:
    """Keeps a token and renews it at 80 % of its lifetime. Safe for threads.

    Callers that need a token at the same time wait for one request. Early renewal
    happens in the background, and the last token is used while it fails.
    """

    RETRY_AFTER = 5.0  # seconds between failed renewals

    def __init__(self, request: Callable[[], Token]) -> None:
        self._request = request
        self._lock = threading.Lock()  # never held during a request
        self._token: Token | None = None
        self._pending: Future[Token] | None = None
        self._retry_at = 0.0
        self._worker = ThreadPoolExecutor(1, "token")

    def get(self, refused: str | None = None) -> str:
        """Return a token other than `refused`, the one that an API did not accept."""
        with self._lock:
            now, token = time.monotonic(), self._token
            if token and (token.value == refused or now >= token.expires_at):
                token = None
            if token and now < max(token.renew_at, self._retry_at):
                return token.value
            if self._pending is None:
                self._pending = self._worker.submit(self._renew)
            pending = self._pending
        return token.value if token else pending.result().value

    def _renew(self) -> Token:
        try:
            token = self._request()
        except Exception as error:
            log.warning("token request failed: %s", error)
            with self._lock:
                self._pending = None
                self._retry_at = time.monotonic() + self.RETRY_AFTER
            raise
        with self._lock:
            self._pending, self._token = None, token
        return token


class BearerAuth(httpx.Auth):
    """Sends the token over HTTP, and once more with another one after a 401."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        token = self._tokens.get()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            token = self._tokens.get(refused=token)
            request.headers["Authorization"] = f"Bearer {token}"
            yield request


class BearerInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Sends the token over gRPC, and once more with another one if it is refused."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> Any:
        token = self._tokens.get()
        call = continuation(with_token(client_call_details, token), request)
        if call.code() is grpc.StatusCode.UNAUTHENTICATED:
            token = self._tokens.get(refused=token)
            call = continuation(with_token(client_call_details, token), request)
        return call


@dataclass
class CallDetails(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


def with_token(details: grpc.ClientCallDetails, token: str) -> CallDetails:
    return CallDetails(
        details.method,
        details.timeout,
        (*(details.metadata or ()), ("authorization", f"Bearer {token}")),
        details.credentials,
        details.wait_for_ready,
        details.compression,
    )
