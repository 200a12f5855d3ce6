// A background service that lists invoices periodically, over HTTP and over gRPC.
import { setTimeout as sleep } from "node:timers/promises";
import { credentials } from "@grpc/grpc-js";
import {
  InvoiceServiceClient,
  type ListInvoicesResponse,
} from "./gen/invoices/v1/invoices.js";
import {
  authorizedCall,
  authorizedFetch,
  describe,
  requestToken,
  TokenSource,
} from "./tokens.js";

const {
  ISSUER = "http://localhost:8080",
  CLIENT_ID = "background-service",
  CLIENT_SECRET = "service-secret-here", // of development mode, which is public
  SCOPE = "api1",
  HTTP_API = "http://localhost:9090",
  GRPC_API = "localhost:9091",
  INTERVAL = "2", // seconds
} = process.env;

const tokens = new TokenSource(() =>
  requestToken({
    issuer: ISSUER,
    id: CLIENT_ID,
    secret: CLIENT_SECRET,
    scope: SCOPE,
  }),
);
const fetchWithToken = authorizedFetch(tokens);
// Plaintext, to this machine only. Otherwise: credentials.createSsl().
const stub = new InvoiceServiceClient(GRPC_API, credentials.createInsecure());

async function overHTTP(): Promise<string[]> {
  const response = await fetchWithToken(`${HTTP_API}/api/invoices`, {
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) {
    throw new Error(`${response.status} ${await response.text()}`);
  }
  const { invoices } = (await response.json()) as ListInvoicesResponse;
  return invoices.map((invoice) => invoice.id);
}

async function overGRPC(): Promise<string[]> {
  const { invoices } = await authorizedCall<ListInvoicesResponse>(
    tokens,
    (metadata, done) =>
      stub.listInvoices({}, metadata, { deadline: Date.now() + 10_000 }, done),
  );
  return invoices.map((invoice) => invoice.id);
}

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => stop.abort());
}

while (!stop.signal.aborted) {
  for (const [over, list] of Object.entries({
    http: overHTTP,
    grpc: overGRPC,
  })) {
    try {
      console.log(`listed over=${over} invoices=${(await list()).join()}`);
    } catch (error) {
      // The next round may succeed, so no failure ends the loop.
      console.error(`listing failed over=${over}: ${describe(error)}`);
    }
  }
  await sleep(Number(INTERVAL) * 1_000, undefined, {
    signal: stop.signal,
  }).catch(() => {});
}
stub.close();
