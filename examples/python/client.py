"""A background service that lists invoices periodically, over HTTP and over gRPC."""

import logging
import os
import signal
import threading
from functools import partial

import grpc
import httpx

from invoices.v1 import invoices_pb2, invoices_pb2_grpc
from tokens import BearerAuth, BearerInterceptor, TokenError, TokenSource, request_token

log = logging.getLogger("client")

ISSUER = os.environ.get("ISSUER", "http://localhost:8080")
CLIENT_ID = os.environ.get("CLIENT_ID", "background-service")
# The default is the secret of development mode, which is public.
CLIENT_SECRET = os.environ.get("CLIENT_SECRET", "service-secret-here")
SCOPE = os.environ.get("SCOPE", "api1")
HTTP_API = os.environ.get("HTTP_API", "http://localhost:9090")
GRPC_API = os.environ.get("GRPC_API", "localhost:9091")
INTERVAL = float(os.environ.get("INTERVAL", "2"))  # seconds


def over_http(api: httpx.Client) -> list[str]:
    response = api.get("/api/invoices").raise_for_status()
    return [invoice["id"] for invoice in response.json()["invoices"]]


def over_grpc(api: invoices_pb2_grpc.InvoiceServiceStub) -> list[str]:
    answer = api.ListInvoices(invoices_pb2.ListInvoicesRequest(), timeout=10)
    return [invoice.id for invoice in answer.invoices]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    with (
        httpx.Client(timeout=5) as http,
        # Plaintext, to this machine only. Otherwise: grpc.ssl_channel_credentials().
        grpc.secure_channel(GRPC_API, grpc.local_channel_credentials()) as channel,
    ):
        tokens = TokenSource(
            partial(request_token, http, ISSUER, CLIENT_ID, CLIENT_SECRET, SCOPE)
        )
        channel = grpc.intercept_channel(channel, BearerInterceptor(tokens))
        stub = invoices_pb2_grpc.InvoiceServiceStub(channel)
        with httpx.Client(base_url=HTTP_API, auth=BearerAuth(tokens)) as api:
            run(
                stop,
                {"http": partial(over_http, api), "grpc": partial(over_grpc, stub)},
            )


def run(stop: threading.Event, calls: dict[str, partial[list[str]]]) -> None:
    while not stop.is_set():
        for over, call in calls.items():
            try:
                log.info("listed over=%s invoices=%s", over, ",".join(call()))
            except (TokenError, httpx.HTTPError, grpc.RpcError) as error:
                # The next round may succeed, so no failure ends the loop.
                log.error("listing failed over=%s: %s", over, error)
        stop.wait(INTERVAL)


if __name__ == "__main__":
    main()
