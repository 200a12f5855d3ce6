package example;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import io.grpc.Status;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Tests of the token source and of what it sends. */
@Timeout(20)
class TokenSourceTest {
  /** Issues the tokens "token-1", "token-2" and so on, which live for 100 s. */
  private static final class Issuer implements TokenSource.Request {
    final AtomicInteger requests = new AtomicInteger();
    volatile CountDownLatch ready = new CountDownLatch(0);
    volatile boolean down;

    @Override
    public Token send() throws IOException, InterruptedException {
      ready.await();
      if (down) {
        throw new IOException("down");
      }
      return new Token("token-" + requests.incrementAndGet(), Duration.ofSeconds(100));
    }
  }

  private final Issuer issuer = new Issuer();
  private final AtomicLong now = new AtomicLong(Long.MAX_VALUE - 10); // nanoTime may overflow
  private final TokenSource source = new TokenSource(issuer, now::get);

  private void pass(int seconds) {
    now.addAndGet(Duration.ofSeconds(seconds).toNanos());
  }

  private void waitFor(String token) throws IOException, InterruptedException {
    while (!source.get().equals(token)) {
      Thread.sleep(1);
    }
  }

  @Test
  void concurrentCallersShareARequest() throws Exception {
    issuer.ready = new CountDownLatch(1);
    var callers = Executors.newFixedThreadPool(50);
    try {
      Callable<String> get = source::get;
      var results = IntStream.range(0, 50).mapToObj(i -> callers.submit(get)).toList();
      issuer.ready.countDown();
      var tokens = new ArrayList<String>();
      for (var result : results) {
        tokens.add(result.get());
      }
      assertEquals(Set.of("token-1"), tokens.stream().collect(Collectors.toSet()));
      assertEquals(1, issuer.requests.get());
    } finally {
      callers.shutdownNow();
    }
  }

  @Test
  void renewalIsEarlyAndNoCallerWaits() throws Exception {
    assertEquals("token-1", source.get());
    pass(79);
    assertEquals("token-1", source.get());
    assertEquals(1, issuer.requests.get());
    pass(2);
    issuer.ready = new CountDownLatch(1);
    assertEquals("token-1", source.get()); // the renewal has begun
    issuer.ready.countDown();
    waitFor("token-2");
    assertEquals(2, issuer.requests.get());
  }

  @Test
  void lastTokenIsUsedInAnOutage() throws Exception {
    source.get();
    issuer.down = true;
    pass(90);
    assertEquals("token-1", source.get());
    pass(11);
    assertThrows(IOException.class, source::get);
    issuer.down = false;
    waitFor("token-2");
  }

  @Test
  void aTokenThatIsRefusedOverHttpIsReplacedOnce() throws Exception {
    var received = new CopyOnWriteArrayList<String>();
    var server = serve(401, "", received);
    try {
      var http = HttpClient.newHttpClient();
      var client = new BearerClient(http, source);
      var response =
          client.send(HttpRequest.newBuilder(uri(server)).build(), BodyHandlers.ofString());
      assertEquals(401, response.statusCode());
      assertEquals(List.of("Bearer token-1", "Bearer token-2"), received);
      assertEquals("token-2", source.get("token-1"));
    } finally {
      server.stop(0);
    }
  }

  @Test
  void aTokenThatIsRefusedOverGrpcIsReplacedOnce() {
    var calls = new AtomicInteger();
    assertThrows(
        RuntimeException.class,
        () ->
            BearerCredentials.call(
                source,
                credentials -> {
                  calls.incrementAndGet();
                  throw Status.UNAUTHENTICATED.asRuntimeException();
                }));
    assertEquals(2, calls.get());
    assertEquals(2, issuer.requests.get());
  }

  @Test
  void aRefusalHasTheReason() throws Exception {
    var server = serve(401, "{\"error\": \"invalid_client\"}", new CopyOnWriteArrayList<>());
    try {
      var issuer = "http://localhost:" + server.getAddress().getPort();
      var request =
          new ClientCredentials(HttpClient.newHttpClient(), issuer, "me", "wrong", "api1");
      var refusal = assertThrows(IOException.class, request::send);
      assertTrue(refusal.getMessage().contains("invalid_client"), refusal.getMessage());
    } finally {
      server.stop(0);
    }
  }

  private static HttpServer serve(int status, String body, List<String> received)
      throws IOException {
    var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    server.createContext(
        "/",
        exchange -> {
          received.add(String.valueOf(exchange.getRequestHeaders().getFirst("Authorization")));
          exchange.sendResponseHeaders(status, body.isEmpty() ? -1 : body.length());
          if (!body.isEmpty()) {
            exchange.getResponseBody().write(body.getBytes(UTF_8));
          }
          exchange.close();
        });
    server.start();
    return server;
  }

  private static URI uri(HttpServer server) {
    return URI.create("http://localhost:" + server.getAddress().getPort() + "/");
  }
}
