"""Tests of the token source and of what it sends, with an issuer and an API in memory."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from tokens import BearerAuth, TokenError, TokenSource, request_token


class Issuer:
    """Issues the tokens "token-1", "token-2" and so on."""

    def __init__(self) -> None:
        self.requests = 0
        self.ready = threading.Event()
        self.ready.set()
        self.down = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.ready.wait(5)
        if self.down:
            raise httpx.ConnectError("down", request=request)
        assert request.url == "http://issuer/connect/token"
        assert request.content.startswith(b"grant_type=client_credentials&client_id=me")
        self.requests += 1
        return httpx.Response(
            200, json={"access_token": f"token-{self.requests}", "expires_in": 100}
        )

    def source(self) -> TokenSource:
        http = httpx.Client(transport=httpx.MockTransport(self))
        return TokenSource(
            partial(request_token, http, "http://issuer", "me", "secret", "api1")
        )


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    yield clock


def test_concurrent_callers_share_a_request() -> None:
    issuer = Issuer()
    issuer.ready.clear()
    source = issuer.source()
    with ThreadPoolExecutor(50) as callers:
        results = [callers.submit(source.get) for _ in range(50)]
        issuer.ready.set()
    assert {result.result() for result in results} == {"token-1"}
    assert issuer.requests == 1


def test_renewal_is_early_and_no_caller_waits(clock: Clock) -> None:
    issuer = Issuer()
    source = issuer.source()
    assert source.get() == "token-1"
    clock.now += 79
    assert source.get() == "token-1" and issuer.requests == 1
    clock.now += 2
    issuer.ready.clear()
    assert source.get() == "token-1"  # the renewal has begun
    pending = source._pending
    assert pending
    issuer.ready.set()
    pending.result()
    assert source.get() == "token-2" and issuer.requests == 2


def test_last_token_is_used_in_an_outage(clock: Clock) -> None:
    issuer = Issuer()
    source = issuer.source()
    source.get()
    issuer.down = True
    clock.now += 90
    assert source.get() == "token-1"
    clock.now += 11
    with pytest.raises(TokenError):
        source.get()
    issuer.down = False
    assert source.get() == "token-2"


def test_a_refused_token_is_replaced_once() -> None:
    issuer = Issuer()
    source = issuer.source()
    received = []

    def api(request: httpx.Request) -> httpx.Response:
        received.append(request.headers["Authorization"])
        return httpx.Response(401)

    transport = httpx.MockTransport(api)
    with httpx.Client(transport=transport, auth=BearerAuth(source)) as client:
        assert client.get("http://api/").status_code == 401
    assert received == ["Bearer token-1", "Bearer token-2"]
    assert source.get(refused="token-1") == "token-2"


def test_a_refusal_has_the_reason() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"error": "invalid_client"})

    http = httpx.Client(transport=httpx.MockTransport(refuse))
    with pytest.raises(TokenError, match="invalid_client"):
        request_token(http, "http://issuer", "me", "wrong", "api1")
