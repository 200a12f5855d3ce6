package example;

/** What both programs do with the process that they are. */
final class Environment {
  private Environment() {}

  static String get(String name, String otherwise) {
    var value = System.getenv(name);
    return value == null ? otherwise : value;
  }

  static void logOnOneLine() {
    System.setProperty("java.util.logging.SimpleFormatter.format", "%4$s %3$s %5$s%6$s%n");
  }

  /** Calls stop at SIGTERM and SIGINT, and lets the calling thread end before the process does. */
  static void onShutdown(Runnable stop) {
    var main = Thread.currentThread();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  stop.run();
                  try {
                    main.join();
                  } catch (InterruptedException now) {
                    Thread.currentThread().interrupt();
                  }
                }));
  }
}
