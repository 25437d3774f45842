package dev.edgesam.harness.core;

/** What went wrong, as the protocol's event {@code error} says it. Message and hint are one line each. */
public final class Fault extends Exception {
  private static final long serialVersionUID = 1;
  private static final int LONGEST = 500;

  private final String code;
  private final String hint;

  public Fault(String code, String message) {
    this(code, message, null);
  }

  public Fault(String code, String message, String hint) {
    super(oneLine(message));
    this.code = code;
    this.hint = hint == null ? null : oneLine(hint);
  }

  /** A runtime's own words, with the kind of exception where it has none. */
  public static Fault of(String code, Throwable cause) {
    String words = cause.getMessage();
    Fault fault = new Fault(code, words == null ? cause.getClass().getSimpleName() : words);
    fault.initCause(cause);
    return fault;
  }

  public String code() {
    return code;
  }

  public String hint() {
    return hint;
  }

  private static String oneLine(String text) {
    StringBuilder line = new StringBuilder();
    for (int i = 0; i < text.length() && i < LONGEST; i++) {
      char c = text.charAt(i);
      line.append(Character.isISOControl(c) ? ' ' : c);
    }
    return line.toString().trim();
  }
}
