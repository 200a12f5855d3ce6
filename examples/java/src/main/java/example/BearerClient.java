package example;

import java.io.IOException;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;

/** Sends requests with the token, and once more with another one after a 401. */
public record BearerClient(HttpClient http, TokenSource tokens) {

  public <T> HttpResponse<T> send(HttpRequest request, BodyHandler<T> handler)
      throws IOException, InterruptedException {
    var token = tokens.get();
    var response = http.send(withToken(request, token), handler);
    if (response.statusCode() != 401) {
      return response;
    }
    return http.send(withToken(request, tokens.get(token)), handler);
  }

  private static HttpRequest withToken(HttpRequest request, String token) {
    return HttpRequest.newBuilder(request, (name, value) -> true)
        .setHeader("Authorization", "Bearer " + token)
        .build();
  }
}
