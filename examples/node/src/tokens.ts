// Access tokens by client credentials (RFC 6749 section 4.4), over HTTP and gRPC.
import { Metadata, status, type ServiceError } from "@grpc/grpc-js";

export interface Token {
  value: string;
  renewAt: number; // milliseconds of performance.now()
  expiresAt: number;
}

export interface Client {
  issuer: string;
  id: string;
  secret: string;
  scope: string;
}

export async function requestToken(client: Client): Promise<Token> {
  const now = performance.now();
  const response = await fetch(`${client.issuer}/connect/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "client_credentials",
      client_id: client.id,
      client_secret: client.secret,
      scope: client.scope,
    }),
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) {
    throw new Error(`no token: ${response.status} ${await response.text()}`);
  }
  const answer = (await response.json()) as {
    access_token: string;
    expires_in: number;
  };
  const lifetime = answer.expires_in * 1_000;
  return {
    value: answer.access_token,
    renewAt: now + 0.8 * lifetime,
    expiresAt: now + lifetime,
  };
}

/**
 * Keeps a token and renews it at 80 % of its lifetime. Callers that need a token
 * at the same time wait for one request. Early renewal happens in the background,
 * and the last token is used while it fails.
 */
export class TokenSource {
  static readonly retryAfter = 5_000; // milliseconds between failed renewals

  #request: () => Promise<Token>;
  #token?: Token;
  #pending?: Promise<Token>;
  #retryAt = 0;

  constructor(request: () => Promise<Token>) {
    this.#request = request;
  }

  /** Returns a token other than `refused`, the one that an API did not accept. */
  async get(refused?: string): Promise<string> {
    const now = performance.now();
    const token = this.#token;
    const usable = token && token.value !== refused && now < token.expiresAt;
    if (usable && now < Math.max(token.renewAt, this.#retryAt)) {
      return token.value;
    }
    this.#pending ??= this.#renew();
    if (usable) {
      this.#pending.catch(() => {}); // #renew has logged it
      return token.value;
    }
    return (await this.#pending).value;
  }

  async #renew(): Promise<Token> {
    try {
      return (this.#token = await this.#request());
    } catch (error) {
      this.#retryAt = performance.now() + TokenSource.retryAfter;
      console.warn("token request failed:", describe(error));
      throw error;
    } finally {
      this.#pending = undefined;
    }
  }
}

/** Returns a fetch that sends the token, and once more with another one after a 401. */
export function authorizedFetch(tokens: TokenSource): typeof fetch {
  return async (input, init) => {
    const request = new Request(input, init);
    const send = (token: string) => {
      const attempt = request.clone();
      attempt.headers.set("Authorization", `Bearer ${token}`);
      return fetch(attempt);
    };
    const token = await tokens.get();
    const response = await send(token);
    if (response.status !== 401) {
      return response;
    }
    await response.body?.cancel();
    return send(await tokens.get(token));
  };
}

/** Makes a gRPC call with the token, and once more with another one if it is refused. */
export async function authorizedCall<T>(
  tokens: TokenSource,
  call: (
    metadata: Metadata,
    done: (error: ServiceError | null, response: T) => void,
  ) => void,
): Promise<T> {
  const send = (token: string) =>
    new Promise<T>((resolve, reject) => {
      const metadata = new Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      call(metadata, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  const token = await tokens.get();
  try {
    return await send(token);
  } catch (error) {
    if ((error as ServiceError).code !== status.UNAUTHENTICATED) {
      throw error;
    }
    return send(await tokens.get(token));
  }
}

/** Returns the message of an error, with the cause that fetch hides. */
export function describe(error: unknown): string {
  const { message, cause } = error as Error;
  return cause ? `${message}: ${(cause as Error).message}` : message;
}
