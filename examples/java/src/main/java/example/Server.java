package example;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import com.sun.net.httpserver.HttpServer;
import invoices.v1.Invoices;
import io.grpc.InsecureServerCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;

/** The invoices API, over HTTP and over gRPC. */
public final class Server {
  private static final Logger log = System.getLogger("server");
  private static final Gson gson = new Gson();
  private static final int MAX_BODY = 10_000; // bytes

  private final InvoiceBook book = new InvoiceBook();

  public static void main(String[] arguments) throws IOException, InterruptedException {
    Environment.logOnOneLine();
    var verifier =
        new Verifier(
            Environment.get("ISSUER", "http://localhost:8080"),
            Environment.get("AUDIENCE", "https://orders.internal"));
    new Server().serve(verifier);
  }

  private void serve(Verifier verifier) throws IOException, InterruptedException {
    var service = Invoices.getDescriptor().findServiceByName("InvoiceService");
    // Plaintext, on this machine only. Otherwise: TlsServerCredentials.create(…).
    var grpc =
        NettyServerBuilder.forAddress(
                address(Environment.get("GRPC_LISTEN", "localhost:9091")),
                InsecureServerCredentials.create())
            .addService(new InvoiceService(book))
            .intercept(new GrpcGuard(verifier, service))
            .build()
            .start();

    var address = address(Environment.get("HTTP_LISTEN", "localhost:9090"));
    var workers = Executors.newFixedThreadPool(16);
    var http = HttpServer.create(address, 0);
    http.setExecutor(workers);
    http.createContext("/", invoices(new HttpGuard(verifier)));
    http.start();
    log.log(
        Level.INFO, "serving http={0} grpc={1}", http.getAddress(), grpc.getListenSockets().get(0));

    var stop = new CountDownLatch(1);
    Environment.onShutdown(stop::countDown);
    stop.await();
    grpc.shutdown();
    http.stop(1); // seconds
    workers.shutdown();
    grpc.awaitTermination();
  }

  private HttpHandler invoices(HttpGuard guard) {
    var actions =
        Map.of(
            "GET", guard.require(Set.of("api1"), this::list),
            "POST", guard.require(Set.of("invoices.write"), this::create));
    return exchange -> {
      try (exchange) {
        if (!exchange.getRequestURI().getPath().equals("/api/invoices")) {
          exchange.sendResponseHeaders(404, -1);
          return;
        }
        var action = actions.get(exchange.getRequestMethod());
        if (action == null) {
          exchange.sendResponseHeaders(405, -1);
          return;
        }
        action.handle(exchange);
      }
    };
  }

  private void list(HttpExchange exchange, Caller caller) throws IOException {
    log.log(Level.INFO, "listed over HTTP for {0}", caller.clientId());
    answer(exchange, 200, Map.of("invoices", book.list()));
  }

  private record NewInvoice(Long cents) {}

  private void create(HttpExchange exchange, Caller caller) throws IOException {
    var body = new String(exchange.getRequestBody().readNBytes(MAX_BODY), UTF_8);
    NewInvoice wanted = null;
    try {
      wanted = gson.fromJson(body, NewInvoice.class);
    } catch (JsonParseException malformed) {
      // as below
    }
    if (wanted == null || wanted.cents == null) {
      exchange.sendResponseHeaders(400, -1);
      return;
    }
    answer(exchange, 201, book.create(caller.clientId(), wanted.cents));
  }

  private static void answer(HttpExchange exchange, int status, Object value) throws IOException {
    var body = gson.toJson(value).getBytes(UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "application/json");
    exchange.sendResponseHeaders(status, body.length);
    exchange.getResponseBody().write(body);
  }

  private static InetSocketAddress address(String hostAndPort) {
    int colon = hostAndPort.lastIndexOf(':');
    return new InetSocketAddress(
        hostAndPort.substring(0, colon), Integer.parseInt(hostAndPort.substring(colon + 1)));
  }
}
