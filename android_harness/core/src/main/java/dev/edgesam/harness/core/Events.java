package dev.edgesam.harness.core;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A job's stream: numbers its events, counts them, and writes each as one line to every sink in turn. A sink that
 * fails gets nothing more; the others go on without a gap.
 */
public final class Events {
  /** Where lines go: a file, a terminal, Android's status lines. */
  public interface Sink {
    /** Takes one event without a newline. */
    void line(String json) throws IOException;
  }

  private final String job;
  private final List<Sink> sinks;
  private final Map<String, Object> counts = new LinkedHashMap<String, Object>();
  private final List<Map<String, Object>> waiting = new ArrayList<Map<String, Object>>();
  private long seq;

  Events(String job, List<Sink> sinks) {
    this.job = job;
    this.sinks = sinks;
  }

  /** An event's fields, to be filled and given to {@link #send}. */
  static Map<String, Object> event(String type) {
    Map<String, Object> event = new LinkedHashMap<String, Object>();
    event.put("type", type);
    return event;
  }

  /** Whether nothing was written yet. */
  boolean none() {
    return seq == 0;
  }

  /** Writes an event now, after those that wait. */
  void send(Map<String, Object> event) throws IOException {
    waiting.add(event);
    flush();
  }

  /** Keeps a sample until {@link #flush}, so that nothing is written within what is timed. */
  void sample(String stage, long round, long beganNs, long endedNs) {
    Map<String, Object> event = event("sample");
    event.put("stage", stage);
    event.put("round", round);
    event.put("ns", endedNs - beganNs);
    event.put("at_ns", endedNs);
    waiting.add(event);
  }

  void flush() throws IOException {
    while (!waiting.isEmpty()) {
      write(waiting.remove(0)); // before it is written: where a sink fails, no event comes twice
    }
  }

  /** The last event, {@code complete}, {@code failed} or {@code cancelled}; what belongs to no job has none. */
  void end(String status) throws IOException {
    flush();
    if (job == null) {
      return;
    }
    Map<String, Object> event = event("end");
    event.put("status", status);
    event.put("counts", new LinkedHashMap<String, Object>(counts));
    write(event);
  }

  private void write(Map<String, Object> event) throws IOException {
    Map<String, Object> numbered = new LinkedHashMap<String, Object>();
    String type = (String) event.get("type");
    numbered.put("type", type);
    numbered.put("seq", seq++);
    if (job != null) {
      numbered.put("job", job);
    }
    numbered.putAll(event);
    Object before = counts.get(type);
    counts.put(type, before == null ? 1 : (Integer) before + 1);
    String line = JsonText.of(numbered);
    IOException failure = null;
    for (Iterator<Sink> left = sinks.iterator(); left.hasNext(); ) {
      try {
        left.next().line(line);
      } catch (IOException e) {
        left.remove();
        failure = e;
      }
    }
    if (failure != null) {
      throw failure;
    }
  }
}
