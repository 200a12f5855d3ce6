"""The invoices API, over HTTP and over gRPC: uvicorn server:app --port 9090"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeAlias

import grpc.aio
from fastapi import FastAPI, Security
from pydantic import BaseModel

from invoices.v1 import invoices_pb2 as pb
from invoices.v1 import invoices_pb2_grpc
from verifier import Caller, GRPCGuard, HTTPGuard, Verifier, caller

log = logging.getLogger("uvicorn.error")

verifier = Verifier(
    os.environ.get("ISSUER", "http://localhost:8080"),
    os.environ.get("AUDIENCE", "https://orders.internal"),
)
guard = HTTPGuard(verifier)


class Invoice(BaseModel):
    id: str
    cents: int


class NewInvoice(BaseModel):
    cents: int


invoices = [Invoice(id="2026-001", cents=12_000)]


def create(client_id: str, cents: int) -> Invoice:
    invoice = Invoice(id=f"2026-{len(invoices) + 1:03}", cents=cents)
    invoices.append(invoice)
    log.info("created %s for %s", invoice.id, client_id)
    return invoice


Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class InvoiceService(invoices_pb2_grpc.InvoiceServiceServicer):
    async def ListInvoices(
        self, request: pb.ListInvoicesRequest, context: Context
    ) -> pb.ListInvoicesResponse:
        log.info("listed over gRPC for %s", caller.get().client_id)
        return pb.ListInvoicesResponse(
            invoices=[pb.Invoice(id=i.id, cents=i.cents) for i in invoices]
        )

    async def CreateInvoice(
        self, request: pb.CreateInvoiceRequest, context: Context
    ) -> pb.CreateInvoiceResponse:
        invoice = create(caller.get().client_id, request.cents)
        return pb.CreateInvoiceResponse(
            invoice=pb.Invoice(id=invoice.id, cents=invoice.cents)
        )


@asynccontextmanager
async def serve_grpc(_: FastAPI) -> AsyncIterator[None]:
    service = pb.DESCRIPTOR.services_by_name["InvoiceService"]
    server = grpc.aio.server(interceptors=[GRPCGuard(verifier, service)])
    invoices_pb2_grpc.add_InvoiceServiceServicer_to_server(InvoiceService(), server)
    server.add_insecure_port(os.environ.get("GRPC_LISTEN", "localhost:9091"))
    await server.start()
    yield
    await server.stop(grace=5)


app = FastAPI(lifespan=serve_grpc)


@app.get("/api/invoices")
async def list_invoices(
    by: Annotated[Caller, Security(guard, scopes=["api1"])],
) -> dict[str, list[Invoice]]:
    log.info("listed over HTTP for %s", by.client_id)
    return {"invoices": invoices}


@app.post("/api/invoices", status_code=201)
async def create_invoice(
    new: NewInvoice,
    by: Annotated[Caller, Security(guard, scopes=["invoices.write"])],
) -> Invoice:
    return create(by.client_id, new.cents)
