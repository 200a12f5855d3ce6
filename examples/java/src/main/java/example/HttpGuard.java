package example;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.List;
import java.util.Set;

/** Checks the token of a request before an action. */
public record HttpGuard(Verifier verifier) {
  private static final Logger log = System.getLogger("http");

  /** What a handler does for a caller. */
  @FunctionalInterface
  public interface Action {
    void handle(HttpExchange exchange, Caller caller) throws IOException;
  }

  /** Returns a handler of requests whose tokens have the scopes. */
  public HttpHandler require(Set<String> scopes, Action action) {
    return exchange -> {
      Caller caller;
      try {
        var authorization = exchange.getRequestHeaders().getOrDefault("Authorization", List.of());
        caller = verifier.verify(authorization, scopes);
      } catch (Verifier.Refusal refusal) {
        refuse(exchange, refusal);
        return;
      }
      action.handle(exchange, caller);
    };
  }

  private static void refuse(HttpExchange exchange, Verifier.Refusal refusal) throws IOException {
    var reason = refusal.reason();
    log.log(
        Level.WARNING,
        "refused {0}: {1}: {2}",
        exchange.getRequestURI().getPath(),
        reason,
        refusal.getMessage());
    var headers = exchange.getResponseHeaders();
    int status =
        switch (reason) {
          case INVALID_TOKEN -> {
            headers.set("WWW-Authenticate", "Bearer error=\"invalid_token\"");
            yield 401;
          }
          case INSUFFICIENT_SCOPE -> {
            headers.set(
                "WWW-Authenticate",
                "Bearer error=\"insufficient_scope\", scope=\"%s\""
                    .formatted(refusal.getMessage()));
            yield 403;
          }
          case KEYS_UNAVAILABLE -> 503;
        };
    exchange.sendResponseHeaders(status, -1);
  }
}
