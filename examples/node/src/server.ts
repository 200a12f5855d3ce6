// The invoices API, over HTTP and over gRPC.
import { Server, ServerCredentials } from "@grpc/grpc-js";
import express from "express";
import {
  InvoiceServiceService,
  protoMetadata,
  type Invoice,
  type InvoiceServiceServer,
} from "./gen/invoices/v1/invoices.js";
import { callerOf, createVerifier, guard, requireScopes } from "./verifier.js";

const {
  ISSUER = "http://localhost:8080",
  AUDIENCE = "https://orders.internal",
  HTTP_LISTEN = "localhost:9090",
  GRPC_LISTEN = "localhost:9091",
} = process.env;

const verify = createVerifier(ISSUER, AUDIENCE);
const invoices: Invoice[] = [{ id: "2026-001", cents: 12_000 }];

function create(clientId: string, cents: number): Invoice {
  const id = `2026-${String(invoices.length + 1).padStart(3, "0")}`;
  const invoice = { id, cents };
  invoices.push(invoice);
  console.log(`created ${id} for ${clientId}`);
  return invoice;
}

const app = express();
app.get("/api/invoices", requireScopes(verify, "api1"), (_, response) => {
  console.log(`listed over HTTP for ${response.locals.caller.clientId}`);
  response.json({ invoices });
});
app.post(
  "/api/invoices",
  requireScopes(verify, "invoices.write"),
  express.json(), // after the token: a stranger's body is not read
  (request, response) => {
    const cents: unknown = request.body?.cents;
    if (!Number.isSafeInteger(cents)) {
      response.sendStatus(400);
      return;
    }
    const { clientId } = response.locals.caller;
    response.status(201).json(create(clientId, cents as number));
  },
);

const service: InvoiceServiceServer = {
  listInvoices(call, callback) {
    console.log(`listed over gRPC for ${callerOf(call).clientId}`);
    callback(null, { invoices });
  },
  createInvoice(call, callback) {
    const { clientId } = callerOf(call);
    callback(null, { invoice: create(clientId, call.request.cents) });
  },
};

// The rules of the methods are in the proto.
const { methods } = protoMetadata.options.services.InvoiceService;
const rules = new Map(
  Object.entries(methods).map(([name, { rule }]) => [
    `/invoices.v1.InvoiceService/${name}`,
    rule.scopes,
  ]),
);
const grpc = new Server({ interceptors: [guard(verify, rules)] });
grpc.addService(InvoiceServiceService, service);

const [host, port] = HTTP_LISTEN.split(":");
const http = app.listen(Number(port), host!);
grpc.bindAsync(GRPC_LISTEN, ServerCredentials.createInsecure(), (error) => {
  if (error) {
    throw error;
  }
  console.log(`serving http=${HTTP_LISTEN} grpc=${GRPC_LISTEN}`);
});
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    http.close();
    grpc.tryShutdown(() => {});
  });
}
