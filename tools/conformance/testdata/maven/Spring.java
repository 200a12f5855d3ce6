import java.util.List;
import java.util.function.Supplier;

import org.springframework.security.oauth2.client.endpoint.OAuth2ClientCredentialsGrantRequest;
import org.springframework.security.oauth2.client.endpoint.RestClientClientCredentialsTokenResponseClient;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.client.registration.ClientRegistrations;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.jwt.BadJwtException;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtDecoders;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;

/** Spring Security's client and resource server against the issuer of the environment. */
public class Spring {
  static final String ISSUER = System.getenv("ISSUER");
  static final String RESOURCE = System.getenv("RESOURCE");
  static final String CLIENT = System.getenv("CLIENT_ID");

  public static void main(String[] arguments) {
    String token = null;
    for (var method : List.of(ClientAuthenticationMethod.CLIENT_SECRET_BASIC, ClientAuthenticationMethod.CLIENT_SECRET_POST)) {
      ClientRegistration registration = ClientRegistrations.fromIssuerLocation(ISSUER)
          .clientId(CLIENT).clientSecret(System.getenv("CLIENT_SECRET")).clientAuthenticationMethod(method)
          .authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS).scope(System.getenv("SCOPE")).build();
      token = new RestClientClientCredentialsTokenResponseClient()
          .getTokenResponse(new OAuth2ClientCredentialsGrantRequest(registration)).getAccessToken().getTokenValue();
    }
    report("Spring Security, `JwtDecoders`", token, () -> JwtDecoders.fromIssuerLocation(ISSUER));
    report("Spring Security, `createAtJwtValidator`", token, () -> accessTokens(RESOURCE));
    try {
      accessTokens("https://elsewhere.internal").decode(token);
      throw new AssertionError("a token for another resource is accepted");
    } catch (BadJwtException expected) {
      // it is for RESOURCE
    }
  }

  /** The decoder of a resource server that takes access tokens of RFC 9068. */
  static JwtDecoder accessTokens(String audience) {
    NimbusJwtDecoder decoder = NimbusJwtDecoder.withIssuerLocation(ISSUER).validateType(false).build();
    decoder.setJwtValidator(JwtValidators.createAtJwtValidator().issuer(ISSUER).audience(audience).clientId(CLIENT).build());
    return decoder;
  }

  /** Reports whether the decoder reads the metadata and accepts the token. */
  static void report(String reader, String token, Supplier<JwtDecoder> decoder) {
    String accepted = "yes";
    try {
      Jwt jwt = decoder.get().decode(token);
      if (!CLIENT.equals(jwt.getSubject())) {
        throw new AssertionError(jwt.getSubject());
      }
    } catch (BadJwtException refused) {
      if (!refused.getMessage().contains("typ")) {
        throw refused;
      }
      accepted = "no";
    }
    System.out.println(String.join("\t", reader, "yes", accepted));
  }
}
