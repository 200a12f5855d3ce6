import java.net.URL;
import java.util.Set;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;

/** Nimbus JOSE + JWT as a resource server, with its own rate limit of requests for keys. */
class Nimbus {
  /** Returns the client of a valid token. */
  static String accepts(String token, String audience) throws Exception {
    String issuer = System.getenv("ISSUER");
    var keys = JWKSourceBuilder.create(new URL(issuer + "/.well-known/jwks.json")).build();
    var processor = new DefaultJWTProcessor<SecurityContext>();
    processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
    processor.setJWSKeySelector(new JWSVerificationKeySelector<>(Set.of(JWSAlgorithm.ES256, JWSAlgorithm.RS256), keys));
    processor.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(
        audience, new JWTClaimsSet.Builder().issuer(issuer).build(), Set.of("exp", "client_id", "scope")));
    return processor.process(token, null).getStringClaim("client_id");
  }

  static void refuses(String token, String audience) throws Exception {
    try {
      throw new AssertionError("accepted: " + accepts(token, audience));
    } catch (BadJOSEException expected) {
      // as it must be
    }
  }
}
