package dev.edgesam.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.Closeable;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** Whole jobs on a made-up runner; its streams are read as the desktop reads them. */
public final class HarnessTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private final MadeUpRunner runner = new MadeUpRunner();
  private final List<String> lines = new ArrayList<String>();
  private String thermal = "nominal";
  private int coolsAfter = Integer.MAX_VALUE;
  private String cancelAt;
  private long now = 1000;

  @Before
  public void files() throws IOException {
    for (String name : new String[] {"models", "inputs", "jobs"}) {
      folder.newFolder(name);
    }
    write("models/encoder", new byte[0]);
    write("models/decoder", new byte[0]);
    ByteArrayOutputStream picture = new ByteArrayOutputStream();
    picture.write("P6 20 10 255\n".getBytes(StandardCharsets.US_ASCII));
    picture.write(new byte[600]);
    write("inputs/picture", picture.toByteArray());
    Mask mask = new Mask(20, 10);
    Arrays.fill(mask.pixels, (byte) 1);
    write("inputs/mask", mask.pbm());
  }

  @Test
  public void aGoodJobIsWholeAndKept() throws Exception {
    assertEquals("complete", run());
    StreamReader stream = read();
    assertEquals("whole", stream.ending());
    assertEquals("complete", stream.status());
    assertEquals(Arrays.asList("gate", "check", "load", "first", "warm-up", "measure"), values("phase", "name"));
    List<Object> stages = values("sample", "stage");
    assertEquals(4, Collections.frequency(stages, "frame"));
    assertEquals(1, Collections.frequency(stages, "first-encode"));
    assertEquals(1, Collections.frequency(stages, "load-cold"));
    assertEquals(0, Collections.frequency(stages, "load-cached"));
    assertEquals(2, Collections.frequency(stages, "kernel"));
    assertEquals(lines, Files.readAllLines(new File(folder.getRoot(), "jobs/job-1.jsonl").toPath(), StandardCharsets.UTF_8));
    assertEquals(Arrays.asList(1f, 0f, -1f), runner.labels);
  }

  @Test
  public void aFrameIsItsFourSteps() throws Exception {
    run();
    Map<String, Long> sums = new LinkedHashMap<String, Long>();
    for (Map<String, Object> event : events("sample")) {
      String stage = (String) event.get("stage");
      String key = Arrays.asList("pre", "encode", "decode", "post").contains(stage) ? "steps" : stage;
      sums.put(key, (Long) event.get("ns") + (sums.containsKey(key) ? sums.get(key) : 0));
    }
    assertEquals(sums.get("frame"), sums.get("steps"));
  }

  @Test
  public void whatARuntimeKeepsOnDiskIsLoadedTwice() throws Exception {
    runner.keepsOnDisk = true;
    run();
    assertEquals(Arrays.<Object>asList("kernel", "load-cold", "load-cached"), values("sample", "stage").subList(0, 3));
    assertEquals(3, runner.open);
  }

  @Test
  public void aWrongMaskFailsBeforeAnythingIsTimed() throws Exception {
    runner.logits[2] = -1;
    assertEquals("failed", run());
    assertEquals(Collections.emptyList(), events("sample"));
    assertEquals(false, events("check").get(0).get("passed"));
    assertEquals("whole", read().ending());
  }

  @Test
  public void anExpectedMaskOfAnotherSizeFailsTheCheck() throws Exception {
    write("inputs/mask", new Mask(10, 20).pbm());
    assertEquals("failed", run());
    Map<?, ?> mask = (Map<?, ?>) ((List<?>) events("check").get(0).get("masks")).get(0);
    assertEquals(0.0, ((Number) mask.get("iou")).doubleValue(), 0);
  }

  @Test
  public void everyFaultHasItsCode() throws Exception {
    assertError("load-failed", "load");
    assertError("run-failed", "encode");
    assertError("run-failed", "decode");
    assertError("internal", "fault");
    runner.failsIn = "";
    assertFault("no-runtime", "'format':'made-up' -> 'format':'other'");
    assertFault("no-runtime", "'runtime':null -> 'runtime':'other'");
    assertFault("no-delegate", "'delegate':'cpu' -> 'delegate':'gpu'");
    assertFault("not-found", "'inputs/mask' -> 'inputs/nothing'");
    assertFault("bad-line", "'inputs/picture','points':[[3.0 -> 'inputs/mask','points':[[3.0");
    assertFault("bad-line", "'slots':3 -> 'slots':2");
    assertFault("bad-path", "models/encoder -> ../encoder");
  }

  @Test
  public void aDamagedModelIsRemoved() throws Exception {
    write("models/decoder", new byte[] {1});
    assertFault("hash-mismatch");
    assertTrue(!new File(folder.getRoot(), "models/decoder").exists());
  }

  @Test
  public void aLinkOutOfTheFolderIsRefused() throws Exception {
    File outside = File.createTempFile("outside", "");
    Files.createSymbolicLink(new File(folder.getRoot(), "models/link").toPath(), outside.toPath());
    assertFault("bad-path", "models/encoder -> models/link");
  }

  @Test
  public void aJobIsRunOnce() throws Exception {
    assertEquals("complete", run());
    assertFault("bad-line");
  }

  @Test
  public void oneJobAtATime() throws Exception {
    Closeable lock = new Storage(folder.getRoot()).lock();
    assertFault("busy");
    lock.close();
    assertEquals("complete", run());
  }

  @Test
  public void aHotDeviceIsWaitedFor() throws Exception {
    thermal = "serious";
    coolsAfter = 3;
    assertEquals("complete", run("'thermal_gate':null -> 'thermal_gate':{'thermal':'fair','wait':60}"));
    assertEquals(Arrays.asList("serious", "serious", "serious", "nominal"), values("state", "thermal").subList(0, 4));
  }

  @Test
  public void aDeviceThatStaysHotIsAnError() throws Exception {
    thermal = "critical";
    assertFault("hot", "'thermal_gate':null -> 'thermal_gate':{'thermal':'fair','wait':5}");
  }

  @Test
  public void aJobIsCancelledBetweenFrames() throws Exception {
    cancelAt = "\"stage\":\"frame\",\"round\":1";
    assertEquals("cancelled", run());
    assertEquals(2, Collections.frequency(values("sample", "stage"), "frame"));
    assertEquals("cancelled", read().status());
    assertEquals("whole", read().ending());
  }

  @Test
  public void aRequestThatIsNoJobIsAnErrorWithoutEnd() throws Exception {
    write("jobs/job-1.json", "what?".getBytes(StandardCharsets.US_ASCII));
    assertEquals("failed", harness().run(folder.getRoot(), "jobs/job-1.json", live()));
    assertEquals(Arrays.<Object>asList("hello", "error"), types());
    assertEquals("truncated", read().ending());
  }

  @Test
  public void whereTheStreamCannotBeKeptTheErrorStillBeginsWithHello() throws Exception {
    write("job.json", MadeUpRunner.line(MadeUpRunner.SIZE, "float32", "NHWC").getBytes(StandardCharsets.UTF_8));
    assertTrue(new File(folder.getRoot(), "jobs").delete());
    write("jobs", new byte[0]);
    assertEquals("failed", harness().run(folder.getRoot(), "job.json", live()));
    assertEquals(Arrays.<Object>asList("hello", "error", "end"), types());
    assertEquals("whole", read().ending());
  }

  @Test
  public void helloAloneIsAStream() throws Exception {
    harness().hello(live());
    assertEquals(Arrays.<Object>asList("hello"), types());
  }

  @Test
  public void whereNothingCanBeKeptTheListenerStillLearnsOfIt() throws Exception {
    final int[] left = {9};
    List<Events.Sink> sinks = new ArrayList<Events.Sink>();
    sinks.add(
        new Events.Sink() {
          @Override
          public void line(String json) throws IOException {
            if (left[0]-- == 0) {
              throw new IOException("full");
            }
          }
        });
    sinks.add(live());
    Events events = new Events("job-1", sinks);
    for (int i = 0; i < 12; i++) {
      try {
        events.send(Events.event("phase"));
        assertTrue(i != 9);
      } catch (IOException e) {
        assertEquals(9, i);
      }
    }
    assertEquals(12, lines.size());
    assertTrue(lines.get(11).contains("\"seq\":11"));
  }

  private void assertError(String code, String step) throws Exception {
    runner.failsIn = step;
    assertFault(code);
  }

  private void assertFault(String code, String... changes) throws Exception {
    lines.clear();
    Files.deleteIfExists(new File(folder.getRoot(), "jobs/job-1.cancel").toPath());
    boolean again = code.equals("bad-line") && changes.length == 0;
    if (!again) {
      Files.deleteIfExists(new File(folder.getRoot(), "jobs/job-1.jsonl").toPath());
    }
    assertEquals("failed", run(changes));
    assertEquals(code, values("error", "code").get(0));
    assertEquals("whole", read().ending());
  }

  private String run(String... changes) throws Exception {
    String line = MadeUpRunner.line(MadeUpRunner.SIZE, "float32", "NHWC", changes);
    write("jobs/job-1.json", line.getBytes(StandardCharsets.UTF_8));
    return harness().run(folder.getRoot(), "jobs/job-1.json", live());
  }

  private Events.Sink live() {
    return new Events.Sink() {
      @Override
      public void line(String json) throws IOException {
        lines.add(json);
        if (cancelAt != null && json.contains(cancelAt)) {
          write("jobs/job-1.cancel", new byte[0]);
        }
      }
    };
  }

  private StreamReader read() {
    StreamReader reader = new StreamReader();
    for (String line : lines) {
      reader.line(line.getBytes(StandardCharsets.UTF_8));
    }
    return reader;
  }

  private List<Map<String, Object>> events(String type) throws Fault {
    List<Map<String, Object>> events = new ArrayList<Map<String, Object>>();
    for (String line : lines) {
      Map<String, Object> event = Json.object(line.getBytes(StandardCharsets.UTF_8));
      if (type == null || event.get("type").equals(type)) {
        events.add(event);
      }
    }
    return events;
  }

  private List<Object> values(String type, String field) throws Fault {
    List<Object> values = new ArrayList<Object>();
    for (Map<String, Object> event : events(type)) {
      values.add(event.get(field));
    }
    return values;
  }

  private List<Object> types() throws Fault {
    return values(null, "type");
  }

  private void write(String path, byte[] content) throws IOException {
    Files.write(new File(folder.getRoot(), path).toPath(), content);
  }

  private Harness harness() {
    return new Harness(runner, new MadeUpProbe());
  }

  /** A clock that goes on by a millisecond whenever it is read, and a device that cools down after some readings. */
  private final class MadeUpProbe implements Probe {
    @Override
    public Map<String, Object> harness() {
      Map<String, Object> harness = new LinkedHashMap<String, Object>();
      harness.put("name", "test");
      harness.put("version", "0");
      harness.put("build", "debug");
      harness.put("debugger", false);
      return harness;
    }

    @Override
    public Map<String, Object> device() {
      return Collections.<String, Object>singletonMap("class", "host");
    }

    @Override
    public Map<String, Object> state() {
      String told = coolsAfter-- > 0 ? thermal : "nominal";
      return Collections.<String, Object>singletonMap("thermal", told);
    }

    @Override
    public long nanos() {
      return now += 1000000;
    }

    @Override
    public void sleep(long millis) {
      now += millis * 1000000;
    }
  }
}
