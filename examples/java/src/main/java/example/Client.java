package example;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static java.util.stream.Collectors.joining;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import invoices.v1.InvoiceServiceGrpc;
import invoices.v1.InvoiceServiceGrpc.InvoiceServiceBlockingStub;
import invoices.v1.Invoices.ListInvoicesRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/** A background service that lists invoices periodically, over HTTP and over gRPC. */
public final class Client {
  private static final Logger log = System.getLogger("client");

  private static final String HTTP_API = Environment.get("HTTP_API", "http://localhost:9090");
  private static final String GRPC_API = Environment.get("GRPC_API", "localhost:9091");
  private static final double INTERVAL =
      Double.parseDouble(Environment.get("INTERVAL", "2")); // seconds

  private interface Call {
    String list() throws IOException, InterruptedException;
  }

  private final TokenSource tokens;
  private final BearerClient http;
  private final InvoiceServiceBlockingStub grpc;

  private Client(TokenSource tokens, BearerClient http, InvoiceServiceBlockingStub grpc) {
    this.tokens = tokens;
    this.http = http;
    this.grpc = grpc;
  }

  public static void main(String[] arguments) throws InterruptedException {
    Environment.logOnOneLine();
    var stop = new CountDownLatch(1);
    Environment.onShutdown(stop::countDown);

    var http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    var tokens =
        new TokenSource(
            new ClientCredentials(
                http,
                Environment.get("ISSUER", "http://localhost:8080"),
                Environment.get("CLIENT_ID", "background-service"),
                // The default is the secret of development mode, which is public.
                Environment.get("CLIENT_SECRET", "service-secret-here"),
                Environment.get("SCOPE", "api1")));
    // Plaintext, to this machine only. Otherwise: TlsChannelCredentials.create().
    var channel = Grpc.newChannelBuilder(GRPC_API, InsecureChannelCredentials.create()).build();
    try {
      new Client(
              tokens, new BearerClient(http, tokens), InvoiceServiceGrpc.newBlockingStub(channel))
          .run(stop);
    } finally {
      channel.shutdownNow();
    }
  }

  private void run(CountDownLatch stop) throws InterruptedException {
    do {
      report("http", this::overHttp);
      report("grpc", this::overGrpc);
    } while (!stop.await((long) (1000 * INTERVAL), MILLISECONDS));
  }

  private static void report(String over, Call call) throws InterruptedException {
    try {
      log.log(Level.INFO, "listed over={0} invoices={1}", over, call.list());
    } catch (IOException | JsonParseException | StatusRuntimeException failure) {
      // The next round may succeed, so no failure ends the loop.
      log.log(Level.ERROR, "listing failed over={0}: {1}", over, failure);
    }
  }

  private record Invoice(String id) {}

  private record Answer(List<Invoice> invoices) {}

  private String overHttp() throws IOException, InterruptedException {
    var request =
        HttpRequest.newBuilder(URI.create(HTTP_API + "/api/invoices"))
            .timeout(Duration.ofSeconds(5))
            .build();
    var response = http.send(request, BodyHandlers.ofString());
    if (response.statusCode() != 200) {
      throw new IOException("HTTP status " + response.statusCode());
    }
    var answer = new Gson().fromJson(response.body(), Answer.class);
    return answer.invoices.stream().map(Invoice::id).collect(joining(","));
  }

  private String overGrpc() throws IOException, InterruptedException {
    var answer =
        BearerCredentials.call(
            tokens,
            credentials ->
                grpc.withCallCredentials(credentials)
                    .withDeadlineAfter(10, SECONDS)
                    .listInvoices(ListInvoicesRequest.getDefaultInstance()));
    return answer.getInvoicesList().stream().map(invoice -> invoice.getId()).collect(joining(","));
  }
}
