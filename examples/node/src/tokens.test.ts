// Tests of the token source and of what it sends, with an issuer and an API in memory.
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { beforeEach, mock, test, type TestContext } from "node:test";
import {
  authorizedFetch,
  requestToken,
  TokenSource,
  type Token,
} from "./tokens.js";

let now = 0;
let requests = 0;
let down = false;

beforeEach(() => {
  [now, requests, down] = [0, 0, false];
  mock.method(performance, "now", () => now);
  mock.method(console, "warn", () => {});
});

/** Issues the tokens "token-1", "token-2" and so on, which live for 100 s. */
async function issue(): Promise<Token> {
  requests++;
  await null;
  if (down) {
    throw new Error("down");
  }
  const value = `token-${requests}`;
  return { value, renewAt: now + 80_000, expiresAt: now + 100_000 };
}

test("concurrent callers share a request", async () => {
  const source = new TokenSource(issue);
  const values = await Promise.all(
    Array.from({ length: 50 }, () => source.get()),
  );
  assert.deepEqual(new Set(values), new Set(["token-1"]));
  assert.equal(requests, 1);
});

test("renewal is early, and no caller waits for it", async () => {
  const source = new TokenSource(issue);
  await source.get();
  now = 79_999;
  assert.equal(await source.get(), "token-1");
  assert.equal(requests, 1);
  now = 80_000;
  assert.equal(await source.get(), "token-1");
  await setImmediate(); // the renewal ends
  assert.equal(await source.get(), "token-2");
  assert.equal(requests, 2);
});

test("the last token is used in an outage", async () => {
  const source = new TokenSource(issue);
  await source.get();
  down = true;
  now = 90_000;
  assert.equal(await source.get(), "token-1");
  assert.equal(await source.get(), "token-1");
  assert.equal(requests, 2, "it waits between failed renewals");
  now = 100_000;
  await assert.rejects(source.get(), /down/);
  down = false;
  assert.equal(await source.get(), "token-4");
});

test("a refused token is replaced once", async (t: TestContext) => {
  const source = new TokenSource(issue);
  const received: (string | null)[] = [];
  t.mock.method(globalThis, "fetch", async (request: Request) => {
    received.push(request.headers.get("Authorization"));
    return new Response(null, { status: 401 });
  });
  const response = await authorizedFetch(source)("http://api/", {
    method: "POST",
    body: "sent twice",
  });
  assert.equal(response.status, 401);
  assert.deepEqual(received, ["Bearer token-1", "Bearer token-2"]);
  assert.equal(await source.get("token-1"), "token-2");
});

test("a refusal has the reason", async (t: TestContext) => {
  t.mock.method(globalThis, "fetch", async () =>
    Response.json({ error: "invalid_client" }, { status: 401 }),
  );
  const client = { issuer: "http://issuer", id: "me", secret: "x", scope: "a" };
  await assert.rejects(requestToken(client), /401 .*invalid_client/);
});
