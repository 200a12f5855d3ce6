package example;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.stream.Collectors.joining;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Map;

/** Requests access tokens by client credentials (RFC 6749 section 4.4). */
public record ClientCredentials(
    HttpClient http, String issuer, String id, String secret, String scope)
    implements TokenSource.Request {

  private record Answer(String access_token, double expires_in) {}

  @Override
  public Token send() throws IOException, InterruptedException {
    var form =
        Map.of(
            "grant_type",
            "client_credentials",
            "client_id",
            id,
            "client_secret",
            secret,
            "scope",
            scope);
    var request =
        HttpRequest.newBuilder(URI.create(issuer + "/connect/token"))
            .timeout(Duration.ofSeconds(5))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .POST(BodyPublishers.ofString(encode(form)))
            .build();
    var response = http.send(request, BodyHandlers.ofString());
    if (response.statusCode() != 200) {
      throw new IOException("no token: " + response.statusCode() + " " + response.body());
    }
    try {
      var answer = new Gson().fromJson(response.body(), Answer.class);
      if (answer != null && answer.access_token != null && answer.expires_in > 0) {
        return new Token(answer.access_token, Duration.ofMillis((long) (1000 * answer.expires_in)));
      }
    } catch (JsonParseException malformed) {
      // as below
    }
    throw new IOException("no token in the answer of " + issuer);
  }

  /** Leaves out the secret. */
  @Override
  public String toString() {
    return id + " at " + issuer;
  }

  private static String encode(Map<String, String> form) {
    return form.entrySet().stream()
        .map(field -> field.getKey() + "=" + URLEncoder.encode(field.getValue(), UTF_8))
        .collect(joining("&"));
  }
}
