package example;

import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.KeySourceException;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.jwk.source.URLBasedJWKSetSource;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.nimbusds.jwt.proc.JWTProcessor;
import java.net.MalformedURLException;
import java.net.URI;
import java.text.ParseException;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Checks access tokens (RFC 9068) with the issuer's key set. Safe for threads. */
public final class Verifier {
  /** The default algorithms of the issuer. A list is essential: a token must not choose. */
  private static final Set<JWSAlgorithm> ALGORITHMS =
      Set.of(JWSAlgorithm.ES256, JWSAlgorithm.RS256);

  /** A refused call. The message of an invalid token is for the log alone. */
  public static final class Refusal extends Exception {
    /** Why a call is refused. */
    public enum Reason {
      /** The caller has no token, or one that is not for this API. */
      INVALID_TOKEN,
      /** The caller's token is valid and lacks the scopes that the message names. */
      INSUFFICIENT_SCOPE,
      /** The issuer's keys cannot be fetched, so no token can be checked. */
      KEYS_UNAVAILABLE
    }

    private static final long serialVersionUID = 1;

    private final Reason reason;

    Refusal(Reason reason, String message) {
      super(message);
      this.reason = reason;
    }

    public Reason reason() {
      return reason;
    }
  }

  private final JWTProcessor<SecurityContext> processor;

  public Verifier(String issuer, String audience) throws MalformedURLException {
    var keySet =
        new URLBasedJWKSetSource<SecurityContext>(
            URI.create(issuer + "/.well-known/jwks.json").toURL(),
            new DefaultResourceRetriever(5_000, 5_000, 100_000)); // milliseconds, and bytes
    // Keeps the keys for five minutes, and fetches them if a token names a new one.
    var keys = JWKSourceBuilder.create(new CalmKeySetSource(keySet)).rateLimited(false).build();

    var required = new JWTClaimsSet.Builder().issuer(issuer).build();
    var claims =
        new DefaultJWTClaimsVerifier<>(
            Set.of(audience), required, Set.of("exp", "sub", "client_id"), Set.of("cnf"));
    claims.setMaxClockSkew(0); // seconds

    var jwt = new DefaultJWTProcessor<>();
    jwt.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
    jwt.setJWSKeySelector(new JWSVerificationKeySelector<>(ALGORITHMS, keys));
    jwt.setJWTClaimsSetVerifier(claims);
    processor = jwt;
  }

  /** Returns the caller, by all values of its Authorization header. */
  public Caller verify(List<String> authorization, Set<String> scopes) throws Refusal {
    if (authorization.size() != 1) {
      throw new Refusal(Refusal.Reason.INVALID_TOKEN, "want one Authorization header");
    }
    var value = authorization.get(0);
    if (!value.regionMatches(true, 0, "Bearer ", 0, 7)) {
      throw new Refusal(Refusal.Reason.INVALID_TOKEN, "want a bearer token");
    }
    var caller = decode(value.substring(7).strip());
    var missing = new HashSet<>(scopes);
    missing.removeAll(caller.scopes());
    if (!missing.isEmpty()) {
      throw new Refusal(Refusal.Reason.INSUFFICIENT_SCOPE, String.join(" ", missing));
    }
    return caller;
  }

  private Caller decode(String token) throws Refusal {
    try {
      var claims = processor.process(token, null);
      var clientId = claims.getStringClaim("client_id");
      var scope = claims.getStringClaim("scope");
      if (clientId == null) {
        throw new Refusal(Refusal.Reason.INVALID_TOKEN, "no client_id");
      }
      return new Caller(clientId, scope == null ? Set.of() : Set.copyOf(List.of(scope.split(" "))));
    } catch (KeySourceException unavailable) {
      throw new Refusal(Refusal.Reason.KEYS_UNAVAILABLE, unavailable.toString());
    } catch (ParseException | BadJOSEException | JOSEException invalid) {
      throw new Refusal(Refusal.Reason.INVALID_TOKEN, invalid.getMessage());
    }
  }
}
