package example;

import java.util.Set;

/** The client that a token was issued to. */
public record Caller(String clientId, Set<String> scopes) {}
