package dev.edgesam.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.Assume;
import org.junit.Test;

/** Against the recorded streams that every implementation of the protocol is tested with. */
public final class StreamsTest {
  @Test
  public void recordedStreamsAreReadAsExpected() throws Exception {
    int read = 0;
    for (File file : streams()) {
      String name = file.getName().replaceAll("\\..*", "");
      Map<String, Object> expected = expected(name);
      String transport = (String) expected.get("transport");
      if (transport.equals("requests") || file.getName().endsWith(".json")) {
        continue;
      }
      StreamReader reader = new StreamReader(transport.equals("duplex"));
      for (byte[] line : lines(Files.readAllBytes(file.toPath()))) {
        byte[] event = transport.equals("instrumentation") ? event(line) : line;
        if (event != null) {
          reader.line(event);
        }
      }
      String code = reader.code != null || reader.ending().equals("whole") ? reader.code : "truncated";
      assertEquals(name, expected.get("code"), code);
      assertEquals(name, expected.get("ending"), reader.ending());
      assertEquals(name, JsonText.of(expected.get("events")), JsonText.of(reader.events));
      assertEquals(name, JsonText.of(expected.get("skipped")), JsonText.of(reader.skipped));
      assertEquals(name, JsonText.of(expected.get("jobs")), JsonText.of(reader.jobs()));
      read++;
    }
    assertTrue(read + " streams", read > 20);
  }

  /** The harness takes jobs from files; of the other requests it must only know that they are none. */
  @Test
  public void recordedRequestsAreAnsweredAsExpected() throws Exception {
    File file = new File(folder(), "requests.jsonl");
    Assume.assumeTrue("no recorded streams", file.exists());
    List<?> codes = (List<?>) expected("requests").get("codes");
    List<byte[]> lines = lines(Files.readAllBytes(file.toPath()));
    int jobs = 0;
    for (int i = 0; i < lines.size(); i++) {
      String code = null;
      boolean job = new String(lines.get(i), StandardCharsets.UTF_8).contains("\"type\":\"job\"");
      try {
        Job.parse(Json.object(lines.get(i)));
        jobs++;
      } catch (Fault fault) {
        code = fault.code();
      }
      if (job) {
        assertEquals("line " + i, codes.get(i), code);
      } else if (code == null || !code.equals("unknown-type")) {
        assertEquals("line " + i, codes.get(i), code);
      }
    }
    assertTrue(jobs > 0);
  }

  private static File folder() {
    return new File(System.getProperty("streams", "../../tests/protocol/streams"));
  }

  private static File[] streams() {
    File[] files = folder().listFiles();
    Assume.assumeTrue("no recorded streams", files != null && files.length > 0);
    List<File> streams = new ArrayList<File>();
    for (File file : files) {
      if (file.getName().endsWith(".jsonl") || file.getName().endsWith(".txt")) {
        streams.add(file);
      }
    }
    return streams.toArray(new File[0]);
  }

  private static Map<String, Object> expected(String name) throws Exception {
    return Json.object(Files.readAllBytes(new File(folder(), name + ".expected.json").toPath()));
  }

  /** Whole lines only; one without its newline is not read. */
  private static List<byte[]> lines(byte[] content) throws IOException {
    List<byte[]> lines = new ArrayList<byte[]>();
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    for (byte b : content) {
      line.write(b);
      if (b == '\n') {
        lines.add(line.toByteArray());
        line.reset();
      }
    }
    return lines;
  }

  private static byte[] event(byte[] line) {
    byte[] start = StreamReader.STATUS.getBytes(StandardCharsets.US_ASCII);
    if (line.length < start.length || !Arrays.equals(Arrays.copyOf(line, start.length), start)) {
      return null;
    }
    return Arrays.copyOfRange(line, start.length, line.length);
  }
}
