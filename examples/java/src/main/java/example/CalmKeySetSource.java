package example;

import com.nimbusds.jose.KeySourceException;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.source.JWKSetCacheRefreshEvaluator;
import com.nimbusds.jose.jwk.source.JWKSetSource;
import com.nimbusds.jose.jwk.source.JWKSetSourceWrapper;
import com.nimbusds.jose.proc.SecurityContext;

/**
 * Fetches a key set that it has at most every 30 s, however many tokens name keys that are not in
 * it.
 *
 * <p>The rate limit of {@code JWKSourceBuilder} counts failures too: after an outage of the issuer,
 * tokens would be refused for up to its interval.
 */
final class CalmKeySetSource extends JWKSetSourceWrapper<SecurityContext> {
  private static final long INTERVAL = 30_000; // milliseconds

  private JWKSet keys;
  private long fetchedAt;

  CalmKeySetSource(JWKSetSource<SecurityContext> source) {
    super(source);
  }

  @Override
  public synchronized JWKSet getJWKSet(
      JWKSetCacheRefreshEvaluator refresh, long now, SecurityContext context)
      throws KeySourceException {
    if (keys == null || now - fetchedAt >= INTERVAL) {
      keys = getSource().getJWKSet(refresh, now, context);
      fetchedAt = now;
    }
    return keys;
  }
}
