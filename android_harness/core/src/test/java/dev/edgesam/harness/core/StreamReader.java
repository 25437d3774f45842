package dev.edgesam.harness.core;

import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Pattern;

/** Reads events as the protocol wants a desktop to: every good one, then what is wrong. */
final class StreamReader {
  static final String STATUS = "INSTRUMENTATION_STATUS: event=";
  private static final Pattern WORD = Pattern.compile("[a-z][a-z0-9-]{0,39}");
  private static final Pattern ANY = Pattern.compile("(?s).*");
  private static final List<String> KNOWN =
      Arrays.asList("hello", "ready", "phase", "sample", "state", "check", "result", "error", "end");

  private final boolean duplex;
  private final Map<String, Sequence> sequences = new LinkedHashMap<String, Sequence>();
  final Map<String, Integer> events = new TreeMap<String, Integer>();
  final Map<String, Integer> skipped = new TreeMap<String, Integer>();
  String code;

  private static final class Sequence {
    long next;
    final Map<String, Long> counts = new HashMap<String, Long>();
    String job;
    String status;
  }

  StreamReader() {
    this(false);
  }

  StreamReader(boolean duplex) {
    this.duplex = duplex;
  }

  void line(byte[] line) {
    if (code == null) {
      try {
        take(Json.object(line));
      } catch (Fault fault) {
        code = fault.code();
      }
    }
  }

  String ending() {
    if (code != null) {
      return "damaged";
    }
    for (Map.Entry<String, Sequence> one : sequences.entrySet()) {
      if (one.getValue().status == null && !(duplex && one.getKey() == null)) {
        return "truncated";
      }
    }
    return sequences.isEmpty() ? "truncated" : "whole";
  }

  /** What the only job's end says. */
  String status() {
    return sequences.get(null).status;
  }

  Map<String, String> jobs() {
    Map<String, String> jobs = new TreeMap<String, String>();
    for (Sequence sequence : sequences.values()) {
      if (sequence.job != null) {
        jobs.put(sequence.job, sequence.status);
      }
    }
    return jobs;
  }

  private void take(Map<String, Object> content) throws Fault {
    Fields event = new Fields(content, "event");
    String type = event.text("type");
    if (content.containsKey("protocol") && !event.text("protocol").equals(Job.PROTOCOL)) {
      throw new Fault("unknown-version", event.text("protocol"));
    }
    event.matching("type", WORD);
    long seq = event.whole("seq", 0, Long.MAX_VALUE);
    String job = event.has("job") ? event.matching("job", Job.ID) : null;
    check(event, type, job);
    String key = duplex ? job : null;
    if (!sequences.containsKey(key)) {
      sequences.put(key, new Sequence());
    }
    Sequence sequence = sequences.get(key);
    if (job != null && sequence.job != null && !job.equals(sequence.job)) {
      throw new Fault("bad-line", "an event of another job");
    }
    if (seq != sequence.next) {
      throw new Fault("gap", "seq " + seq);
    }
    if (seq == 0 && !type.equals("hello") && !(type.equals("error") && duplex && job == null)) {
      throw new Fault("no-hello", type);
    }
    if (sequence.status != null) {
      throw new Fault("bad-line", "something after end");
    }
    if (type.equals("end")) {
      end((Map<?, ?>) content.get("counts"), sequence);
      sequence.status = event.text("status");
    }
    sequence.job = job == null ? sequence.job : job;
    sequence.next++;
    Long before = sequence.counts.get(type);
    sequence.counts.put(type, before == null ? 1 : before + 1);
    Map<String, Integer> seen = KNOWN.contains(type) ? events : skipped;
    seen.put(type, seen.containsKey(type) ? seen.get(type) + 1 : 1);
  }

  private static void end(Map<?, ?> said, Sequence sequence) throws Fault {
    Map<Object, Object> counts = new HashMap<Object, Object>(said);
    counts.values().removeAll(Arrays.<Object>asList(0L));
    if (!counts.equals(sequence.counts)) {
      throw new Fault("counts", "end says " + said);
    }
  }

  private static void check(Fields event, String type, String job) throws Fault {
    if (!Arrays.asList("hello", "ready", "error").contains(type) && KNOWN.contains(type) && job == null) {
      throw event.wrong("job", "an id");
    }
    if (type.equals("hello")) {
      event.object("harness").text("name");
      event.object("harness").flag("debugger");
      event.object("device").matching("class", Pattern.compile("android|ios|emulator|host|simulated"));
      event.objects("runtimes", 0, 1000);
      event.text("protocol", Job.PROTOCOL);
    } else if (type.equals("ready")) {
      event.path("path");
      event.whole("offset", 0, 2L << 30);
      event.flag("complete");
    } else if (type.equals("phase")) {
      event.matching("name", Pattern.compile("gate|check|load|first|warm-up|measure"));
      event.whole("at_ns", 0, Long.MAX_VALUE);
    } else if (type.equals("sample")) {
      event.matching("stage", WORD);
      event.whole("round", 0, Long.MAX_VALUE);
      event.whole("ns", 0, Long.MAX_VALUE);
      event.whole("at_ns", 0, Long.MAX_VALUE);
    } else if (type.equals("state")) {
      event.whole("at_ns", 0, Long.MAX_VALUE);
    } else if (type.equals("check")) {
      for (Fields mask : event.objects("masks", 0, 1000)) {
        mask.number("iou", 0, 1);
        mask.flag("best_same");
      }
      event.number("least_iou", 0, 1);
      event.flag("passed");
    } else if (type.equals("result")) {
      event.object("warm_up").flag("stable");
      event.object("warm_up").whole("rounds", 0, Long.MAX_VALUE);
      event.whole("rounds", 0, Long.MAX_VALUE);
    } else if (type.equals("error")) {
      event.matching("code", WORD);
      event.matching("message", ANY);
    } else if (type.equals("end")) {
      event.matching("status", Pattern.compile("complete|failed|cancelled"));
      event.object("counts");
    }
  }
}
