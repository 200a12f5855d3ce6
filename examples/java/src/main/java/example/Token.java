package example;

import java.time.Duration;

/** An access token and how long it lives after it was requested. */
public record Token(String value, Duration lifetime) {
  /** Leaves out the value. */
  @Override
  public String toString() {
    return "a token for " + lifetime;
  }
}
