package example;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.function.LongSupplier;

/**
 * Keeps a token and renews it at 80 % of its lifetime. Safe for threads.
 *
 * <p>Callers that need a token at the same time wait for one request. Early renewal happens in the
 * background, and the last token is used while it fails.
 */
public final class TokenSource {
  private static final Logger log = System.getLogger("tokens");
  private static final long RETRY_AFTER = 5_000_000_000L; // nanoseconds between failed renewals

  /** A request to the issuer. */
  @FunctionalInterface
  public interface Request {
    Token send() throws IOException, InterruptedException;
  }

  private final Request request;
  private final LongSupplier clock;

  // Guarded by this, which is never locked during a request. Times are those of the clock.
  private Token token;
  private long requestedAt;
  private long retryAt;
  private CompletableFuture<Token> pending;

  public TokenSource(Request request) {
    this(request, System::nanoTime);
  }

  TokenSource(Request request, LongSupplier clock) {
    this.request = request;
    this.clock = clock;
    this.retryAt = clock.getAsLong();
  }

  public String get() throws IOException, InterruptedException {
    return get(null);
  }

  /** Returns a token other than {@code refused}, the one that an API did not accept. */
  public String get(String refused) throws IOException, InterruptedException {
    CompletableFuture<Token> renewal;
    synchronized (this) {
      long now = clock.getAsLong();
      long age = now - requestedAt;
      boolean usable =
          token != null && !token.value().equals(refused) && age < token.lifetime().toNanos();
      if (usable && (age < 0.8 * token.lifetime().toNanos() || now - retryAt < 0)) {
        return token.value();
      }
      if (pending == null) {
        pending = renew(now);
      }
      if (usable) {
        return token.value();
      }
      renewal = pending;
    }
    try {
      return renewal.get().value();
    } catch (ExecutionException failed) {
      throw new IOException(failed.getCause());
    }
  }

  private CompletableFuture<Token> renew(long now) {
    var renewal = new CompletableFuture<Token>();
    var thread =
        new Thread(
            () -> {
              try {
                var next = request.send();
                synchronized (this) {
                  token = next;
                  requestedAt = now;
                  pending = null;
                }
                renewal.complete(next);
              } catch (Exception failure) {
                log.log(Level.WARNING, "token request failed: " + failure);
                synchronized (this) {
                  retryAt = clock.getAsLong() + RETRY_AFTER;
                  pending = null;
                }
                renewal.completeExceptionally(failure);
              }
            },
            "token");
    thread.setDaemon(true);
    thread.start();
    return renewal;
  }
}
