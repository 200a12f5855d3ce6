package example;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.concurrent.Executor;
import java.util.function.Function;

/** Sends a token with a gRPC call. */
public final class BearerCredentials extends CallCredentials {
  static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final String token;

  private BearerCredentials(String token) {
    this.token = token;
  }

  /** Makes a call with the token, and once more with another one if it is refused. */
  public static <T> T call(TokenSource tokens, Function<CallCredentials, T> call)
      throws IOException, InterruptedException {
    var token = tokens.get();
    try {
      return call.apply(new BearerCredentials(token));
    } catch (StatusRuntimeException refusal) {
      if (refusal.getStatus().getCode() != Status.Code.UNAUTHENTICATED) {
        throw refusal;
      }
      return call.apply(new BearerCredentials(tokens.get(token)));
    }
  }

  @Override
  public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
    var headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + token);
    applier.apply(headers);
  }
}
