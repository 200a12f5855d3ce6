// Checks access tokens (RFC 9068) with the issuer's key set, over HTTP and gRPC.
import {
  Metadata,
  ServerInterceptingCall,
  status,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import type { RequestHandler } from "express";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

export interface Caller {
  clientId: string;
  scopes: string[];
}

/** Says why a call is refused: its message is for the operator alone. */
export class Refusal extends Error {
  readonly status: 401 | 403 | 503;
  readonly missing: string;

  constructor(status: 401 | 403 | 503, message: string, missing = "") {
    super(message);
    this.status = status;
    this.missing = missing;
  }
}

/** Returns the caller, by all values of its Authorization header. Rejects with a Refusal. */
export type Verifier = (
  authorization: readonly string[],
  scopes: readonly string[],
) => Promise<Caller>;

export function createVerifier(issuer: string, audience: string): Verifier {
  // Keeps the keys for ten minutes, and fetches them if a token names a new one.
  const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));
  const options = {
    issuer,
    audience,
    typ: "at+jwt",
    // The default algorithms of the issuer. A list is essential: a token must not choose.
    algorithms: ["ES256", "RS256"],
    requiredClaims: ["exp", "sub", "client_id"],
  };
  return async (authorization, scopes) => {
    if (authorization.length !== 1) {
      throw new Refusal(401, "want one Authorization header");
    }
    const [, token] = /^Bearer +(\S+)$/i.exec(authorization[0]!) ?? [];
    if (!token) {
      throw new Refusal(401, "want a bearer token");
    }
    const { payload } = await jwtVerify(token, keys, options).catch((error) => {
      throw new Refusal(keysAreMissing(error) ? 503 : 401, String(error));
    });
    if (payload.cnf) {
      throw new Refusal(401, "bound to a key, which is not checked here");
    }
    const caller = {
      clientId: String(payload.client_id),
      scopes: String(payload.scope ?? "").split(" "),
    };
    const missing = scopes.filter((scope) => !caller.scopes.includes(scope));
    if (missing.length > 0) {
      throw new Refusal(403, `missing ${missing}`, missing.join(" "));
    }
    return caller;
  };
}

/** Reports whether the issuer's keys could not be fetched, which says nothing about the token. */
function keysAreMissing(error: unknown): boolean {
  return (
    !(error instanceof errors.JOSEError) || // of fetch
    error instanceof errors.JWKSTimeout ||
    error instanceof errors.JWKSInvalid ||
    error.code === errors.JOSEError.code // a response other than 200
  );
}

/** Guards a route. Its handler finds the caller in `response.locals.caller`. */
export function requireScopes(
  verify: Verifier,
  ...scopes: string[]
): RequestHandler {
  return async (request, response, next) => {
    try {
      response.locals.caller = await verify(
        request.headersDistinct.authorization ?? [],
        scopes,
      );
    } catch (error) {
      if (!(error instanceof Refusal)) {
        throw error;
      }
      console.warn(
        `refused ${request.method} ${request.path}: ${error.message}`,
      );
      if (error.status === 401) {
        response.set("WWW-Authenticate", 'Bearer error="invalid_token"');
      } else if (error.status === 403) {
        response.set(
          "WWW-Authenticate",
          `Bearer error="insufficient_scope", scope="${error.missing}"`,
        );
      }
      response.sendStatus(error.status);
      return;
    }
    next();
  };
}

const callers = new WeakMap<Metadata, Caller>();

/** Returns the caller of a gRPC method that `guard` has let through. */
export function callerOf(call: { metadata: Metadata }): Caller {
  return callers.get(call.metadata)!;
}

/** Guards a gRPC server by the scopes of each method, keyed by the method's path. */
export function guard(
  verify: Verifier,
  rules: ReadonlyMap<string, readonly string[]>,
): ServerInterceptor {
  return (method, call) =>
    new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: async (metadata, forward) => {
            try {
              const scopes = rules.get(method.path);
              if (!scopes?.length) {
                throw new Refusal(403, "no rule");
              }
              const authorization = metadata.get("authorization").map(String);
              callers.set(metadata, await verify(authorization, scopes));
            } catch (error) {
              const refusal = error as Refusal;
              console.warn(`refused ${method.path}: ${refusal.message}`);
              call.sendStatus(statusOf(refusal));
              return;
            }
            forward(metadata);
          },
        }),
    });
}

function statusOf(refusal: Refusal) {
  switch (refusal.status) {
    case 401:
      return { code: status.UNAUTHENTICATED, details: "invalid token" };
    case 403:
      return {
        code: status.PERMISSION_DENIED,
        details: `missing scope: ${refusal.missing}`,
      };
    case 503:
      return { code: status.UNAVAILABLE, details: "tokens cannot be checked" };
    default:
      return { code: status.INTERNAL, details: "internal error" };
  }
}
