import org.springframework.security.authentication.AnonymousAuthenticationToken;
import org.springframework.security.core.authority.AuthorityUtils;
import org.springframework.security.oauth2.client.AuthorizedClientServiceOAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.ClientAuthorizationException;
import org.springframework.security.oauth2.client.InMemoryOAuth2AuthorizedClientService;
import org.springframework.security.oauth2.client.OAuth2AuthorizeRequest;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.client.registration.InMemoryClientRegistrationRepository;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;

/** Spring Security's authorized client manager: it keeps a token and renews it, and understands a refusal. */
public class SpringClient {
  public static void main(String[] arguments) throws Exception {
    var service = ClientRegistration.withRegistrationId("service").clientId(System.getenv("CLIENT_ID"))
        .clientSecret(System.getenv("CLIENT_SECRET")).clientAuthenticationMethod(ClientAuthenticationMethod.CLIENT_SECRET_BASIC)
        .authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS).scope(System.getenv("SCOPE"))
        .tokenUri(System.getenv("ISSUER") + "/connect/token").build();
    var refused = ClientRegistration.withClientRegistration(service).registrationId("refused").scope(System.getenv("OTHER_SCOPE")).build();
    var registrations = new InMemoryClientRegistrationRepository(service, refused);
    var manager = new AuthorizedClientServiceOAuth2AuthorizedClientManager(
        registrations, new InMemoryOAuth2AuthorizedClientService(registrations));

    OAuth2AuthorizedClient first = manager.authorize(request("service"));
    if (!first.getAccessToken().getScopes().contains(System.getenv("SCOPE"))) {
      throw new AssertionError(first.getAccessToken().getScopes());
    }
    if (!first.getAccessToken().getTokenValue().equals(manager.authorize(request("service")).getAccessToken().getTokenValue())) {
      throw new AssertionError("the token is not kept");
    }
    try {
      manager.authorize(request("refused"));
      throw new AssertionError("a scope that is not granted is accepted");
    } catch (ClientAuthorizationException refusal) {
      if (!refusal.getError().getErrorCode().equals("invalid_scope")) {
        throw refusal;
      }
    }
    String client = Nimbus.accepts(first.getAccessToken().getTokenValue(), System.getenv("RESOURCE"));
    if (!client.equals(System.getenv("CLIENT_ID"))) {
      throw new AssertionError(client);
    }
    Nimbus.refuses(System.getenv("FORGED"), System.getenv("RESOURCE"));
    Nimbus.refuses(first.getAccessToken().getTokenValue(), "https://elsewhere.internal");
  }

  static OAuth2AuthorizeRequest request(String registration) {
    return OAuth2AuthorizeRequest.withClientRegistrationId(registration)
        .principal(new AnonymousAuthenticationToken("key", "service", AuthorityUtils.createAuthorityList("ROLE_SERVICE"))).build();
  }
}
