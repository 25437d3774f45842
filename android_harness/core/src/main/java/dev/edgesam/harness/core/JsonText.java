package dev.edgesam.harness.core;

import java.util.Map;

/** Writes JSON in ASCII, so that no terminal, log or code page on the way can change it. */
public final class JsonText {
  private JsonText() {}

  /** A map, list, text, number, boolean or null, without a newline. What is not finite becomes null. */
  public static String of(Object value) {
    StringBuilder text = new StringBuilder();
    append(text, value);
    return text.toString();
  }

  private static void append(StringBuilder text, Object value) {
    if (value instanceof Map) {
      char before = '{';
      for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
        text.append(before);
        quote(text, (String) entry.getKey());
        text.append(':');
        append(text, entry.getValue());
        before = ',';
      }
      text.append(before == '{' ? "{}" : "}");
    } else if (value instanceof Iterable) {
      char before = '[';
      for (Object element : (Iterable<?>) value) {
        text.append(before);
        append(text, element);
        before = ',';
      }
      text.append(before == '[' ? "[]" : "]");
    } else if (value instanceof String) {
      quote(text, (String) value);
    } else if (value instanceof Number && !isFinite((Number) value)) {
      text.append("null");
    } else if (value == null || value instanceof Boolean || value instanceof Number) {
      text.append(value);
    } else {
      throw new IllegalArgumentException("no JSON for " + value.getClass());
    }
  }

  private static boolean isFinite(Number number) {
    return !Double.isNaN(number.doubleValue()) && !Double.isInfinite(number.doubleValue());
  }

  private static void quote(StringBuilder text, String string) {
    text.append('"');
    for (int i = 0; i < string.length(); i++) {
      char c = string.charAt(i);
      if (c == '"' || c == '\\') {
        text.append('\\').append(c);
      } else if (c < ' ' || c > '~') {
        text.append("\\u");
        for (int shift = 12; shift >= 0; shift -= 4) {
          text.append(Character.forDigit((c >> shift) & 15, 16));
        }
      } else {
        text.append(c);
      }
    }
    text.append('"');
  }
}
