package dev.edgesam.harness.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Reads one line of JSON: objects become {@code Map}, arrays {@code List}, whole numbers {@code Long},
 * others {@code Double}. Depth and length are limited, since the line comes from somebody else.
 */
public final class Json {
  public static final int LONGEST_LINE = 1 << 20;
  private static final int DEEPEST = 64;

  private final String text;
  private int at;
  private int depth;

  private Json(String text) {
    this.text = text;
  }

  /**
   * The object on a line, with or without its newline.
   *
   * @throws Fault {@code too-large} beyond 1 MiB, {@code bad-line} for all else that is no object.
   */
  public static Map<String, Object> object(byte[] line) throws Fault {
    if (line.length > LONGEST_LINE) {
      throw new Fault("too-large", "a line of " + line.length + " bytes; the limit is 1 MiB");
    }
    Json json = new Json(decoded(line));
    Object value = json.value();
    json.space();
    if (json.at < json.text.length()) {
      throw json.bad("something after the end");
    }
    if (!(value instanceof Map)) {
      throw new Fault("bad-line", "no JSON object");
    }
    @SuppressWarnings("unchecked")
    Map<String, Object> object = (Map<String, Object>) value;
    return object;
  }

  private static String decoded(byte[] line) throws Fault {
    try {
      return StandardCharsets.UTF_8
          .newDecoder()
          .onMalformedInput(CodingErrorAction.REPORT)
          .onUnmappableCharacter(CodingErrorAction.REPORT)
          .decode(ByteBuffer.wrap(line))
          .toString();
    } catch (CharacterCodingException e) {
      throw new Fault("bad-line", "not UTF-8");
    }
  }

  private Object value() throws Fault {
    space();
    if (at >= text.length()) {
      throw bad("the line ends early");
    }
    switch (text.charAt(at)) {
      case '{':
        return members();
      case '[':
        return elements();
      case '"':
        return string();
      case 't':
        return word("true", Boolean.TRUE);
      case 'f':
        return word("false", Boolean.FALSE);
      case 'n':
        return word("null", null);
      default:
        return number();
    }
  }

  private Map<String, Object> members() throws Fault {
    Map<String, Object> members = new LinkedHashMap<String, Object>();
    enter();
    if (!took('}')) {
      do {
        space();
        if (at >= text.length() || text.charAt(at) != '"') {
          throw bad("a name was to come");
        }
        String name = string();
        expect(':');
        members.put(name, value());
      } while (took(','));
      expect('}');
    }
    depth--;
    return members;
  }

  private List<Object> elements() throws Fault {
    List<Object> elements = new ArrayList<Object>();
    enter();
    if (!took(']')) {
      do {
        elements.add(value());
      } while (took(','));
      expect(']');
    }
    depth--;
    return elements;
  }

  private void enter() throws Fault {
    at++;
    if (++depth > DEEPEST) {
      throw bad("nested more than " + DEEPEST + " deep");
    }
  }

  private Object word(String word, Object value) throws Fault {
    if (!text.startsWith(word, at)) {
      throw bad("no value");
    }
    at += word.length();
    return value;
  }

  private Object number() throws Fault {
    int begin = at;
    took('-');
    int first = at;
    digits();
    if (text.charAt(first) == '0' && at - first > 1) {
      throw bad("a number begins with 0");
    }
    boolean whole = true;
    if (at < text.length() && text.charAt(at) == '.') {
      at++;
      digits();
      whole = false;
    }
    if (at < text.length() && (text.charAt(at) == 'e' || text.charAt(at) == 'E')) {
      at++;
      if (at < text.length() && (text.charAt(at) == '+' || text.charAt(at) == '-')) {
        at++;
      }
      digits();
      whole = false;
    }
    String number = text.substring(begin, at);
    if (whole && number.length() <= 20) {
      try {
        return Long.valueOf(number);
      } catch (NumberFormatException e) {
        return Double.valueOf(number); // beyond 64 bits: no field takes it for a whole number
      }
    }
    double value = Double.parseDouble(number);
    if (Double.isInfinite(value)) {
      throw bad("a number is not finite");
    }
    return value;
  }

  private void digits() throws Fault {
    int begin = at;
    while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
      at++;
    }
    if (at == begin) {
      throw bad("no value");
    }
  }

  private String string() throws Fault {
    StringBuilder string = new StringBuilder();
    at++;
    while (at < text.length()) {
      char c = text.charAt(at++);
      if (c == '"') {
        return whole(string);
      }
      if (c < ' ') {
        throw bad("a control character in a text");
      }
      string.append(c == '\\' ? escaped() : c);
    }
    throw bad("a text without end");
  }

  private char escaped() throws Fault {
    char c = at < text.length() ? text.charAt(at++) : ' ';
    int place = "\"\\/bfnrt".indexOf(c);
    if (place >= 0) {
      return "\"\\/\b\f\n\r\t".charAt(place);
    }
    if (c != 'u' || at + 4 > text.length()) {
      throw bad("an unknown escape");
    }
    int code = 0;
    for (int end = at + 4; at < end; at++) {
      int digit = Character.digit(text.charAt(at), 16);
      if (digit < 0 || text.charAt(at) > 'f') {
        throw bad("an unknown escape");
      }
      code = code * 16 + digit;
    }
    return (char) code;
  }

  private String whole(CharSequence string) throws Fault {
    for (int i = 0; i < string.length(); i++) {
      char c = string.charAt(i);
      if (Character.isHighSurrogate(c) && i + 1 < string.length() && Character.isLowSurrogate(string.charAt(i + 1))) {
        i++;
      } else if (Character.isSurrogate(c)) {
        throw bad("half a character");
      }
    }
    return string.toString();
  }

  private boolean took(char wanted) {
    space();
    if (at < text.length() && text.charAt(at) == wanted) {
      at++;
      return true;
    }
    return false;
  }

  private void expect(char wanted) throws Fault {
    if (!took(wanted)) {
      throw bad("'" + wanted + "' was to come");
    }
  }

  private void space() {
    while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
      at++;
    }
  }

  private Fault bad(String what) {
    return new Fault("bad-line", "no JSON: " + what + " at character " + at);
  }
}
