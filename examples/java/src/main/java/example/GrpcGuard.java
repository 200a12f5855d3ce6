package example;

import com.google.protobuf.Descriptors.ServiceDescriptor;
import grantor.v1.RuleOuterClass;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Checks each call by the rule that its method has in the proto. */
public final class GrpcGuard implements ServerInterceptor {
  /** The caller of a method. */
  public static final Context.Key<Caller> CALLER = Context.key("caller");

  private static final Logger log = System.getLogger("grpc");

  private final Verifier verifier;
  private final Map<String, Set<String>> scopes = new HashMap<>(); // of methods, by full name

  public GrpcGuard(Verifier verifier, ServiceDescriptor... services) {
    this.verifier = verifier;
    for (var service : services) {
      for (var method : service.getMethods()) {
        var rule = method.getOptions().getExtension(RuleOuterClass.rule);
        if (rule.getScopesCount() == 0) {
          throw new IllegalArgumentException(method.getFullName() + " has no scopes in its rule");
        }
        scopes.put(
            service.getFullName() + "/" + method.getName(), Set.copyOf(rule.getScopesList()));
      }
    }
  }

  @Override
  public <Q, A> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
    var required = scopes.get(call.getMethodDescriptor().getFullMethodName());
    if (required == null) {
      return refuse(call, Status.PERMISSION_DENIED.withDescription("no rule"));
    }
    Caller caller;
    try {
      caller = verifier.verify(authorization(headers), required);
    } catch (Verifier.Refusal refusal) {
      var method = call.getMethodDescriptor().getFullMethodName();
      log.log(
          Level.WARNING, "refused {0}: {1}: {2}", method, refusal.reason(), refusal.getMessage());
      return refuse(call, status(refusal));
    }
    return Contexts.interceptCall(Context.current().withValue(CALLER, caller), call, headers, next);
  }

  private static List<String> authorization(Metadata headers) {
    var values = new ArrayList<String>();
    var all = headers.getAll(BearerCredentials.AUTHORIZATION);
    if (all != null) {
      all.forEach(values::add);
    }
    return values;
  }

  private static Status status(Verifier.Refusal refusal) {
    return switch (refusal.reason()) {
      case INVALID_TOKEN -> Status.UNAUTHENTICATED.withDescription("invalid token");
      case INSUFFICIENT_SCOPE ->
          Status.PERMISSION_DENIED.withDescription("missing scope: " + refusal.getMessage());
      case KEYS_UNAVAILABLE -> Status.UNAVAILABLE.withDescription("tokens cannot be checked now");
    };
  }

  private static <Q, A> ServerCall.Listener<Q> refuse(ServerCall<Q, A> call, Status status) {
    call.close(status, new Metadata());
    return new ServerCall.Listener<>() {};
  }
}
