package dev.edgesam.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.junit.Test;

public final class JsonTest {
  @Test
  public void everyKindOfValueIsRead() throws Fault {
    Map<String, Object> read = parse("{\"a\": [1, -2.5e1, true, null, \"x\\u00e9\\n\\ud83d\\ude00\"], \"b\": {}}\n");
    assertEquals(Arrays.<Object>asList(1L, -25.0, true, null, "x\u00e9\n\ud83d\ude00"), read.get("a"));
    assertEquals(Collections.emptyMap(), read.get("b"));
  }

  @Test
  public void whatIsWrittenIsReadAgain() throws Fault {
    Map<String, Object> event = new LinkedHashMap<String, Object>();
    event.put("text", "\"\\ \u0001 \u20ac \ud83d\ude00");
    event.put("numbers", Arrays.<Object>asList(Long.MAX_VALUE, -1L, 1e-7, 0.1));
    event.put("nothing", null);
    event.put("inner", Collections.singletonMap("flag", false));
    String line = JsonText.of(event);
    assertTrue(line, line.matches("[ -~]*"));
    assertEquals(event, parse(line));
  }

  @Test
  public void whatIsNotFiniteIsNotWritten() {
    assertEquals("[null,null]", JsonText.of(Arrays.<Object>asList(Double.NaN, Float.POSITIVE_INFINITY)));
  }

  @Test
  public void badLinesAreRefused() {
    String[] bad = {
      "", "[]", "1", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1}x", "{a:1}", "{\"a\":NaN}", "{\"a\":1e999}",
      "{\"a\":01}", "{\"a\":- 1}", "{\"a\":.5}", "{\"a\":1.}", "{\"a\":\"\t\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}",
      "{\"a\":\"\\ud800\"}", "{\"a\":\"x}", "{\"a\":tru}", "{\"a\":[1 2]}", "{\"a\":Infinity}"
    };
    for (String line : bad) {
      assertEquals(line, "bad-line", code(line.getBytes(StandardCharsets.UTF_8)));
    }
    assertEquals("bad-line", code(new byte[] {'{', '"', (byte) 0xff, '"', ':', '1', '}'}));
  }

  @Test
  public void depthAndLengthAreLimited() {
    char[] open = new char[100000];
    Arrays.fill(open, '[');
    assertEquals("bad-line", code(("{\"a\":" + new String(open)).getBytes(StandardCharsets.UTF_8)));
    assertEquals("too-large", code(new byte[Json.LONGEST_LINE + 1]));
  }

  @Test
  public void damagedLinesNeverDoAnythingElse() {
    byte[] good = "{\"a\":[1,-2.5e1,true,null,\"x\\u00e9\"],\"b\":{\"c\":\"d\"}}".getBytes(StandardCharsets.UTF_8);
    Random random = new Random(1);
    for (int i = 0; i < 20000; i++) {
      byte[] line = Arrays.copyOf(good, 1 + random.nextInt(good.length));
      for (int k = random.nextInt(4); k >= 0; k--) {
        line[random.nextInt(line.length)] = (byte) random.nextInt(256);
      }
      try {
        Json.object(line);
      } catch (Fault fault) {
        assertEquals("bad-line", fault.code());
      }
    }
  }

  private static Map<String, Object> parse(String line) throws Fault {
    return Json.object(line.getBytes(StandardCharsets.UTF_8));
  }

  private static String code(byte[] line) {
    try {
      fail("read: " + Json.object(line));
      return null;
    } catch (Fault fault) {
      return fault.code();
    }
  }
}
