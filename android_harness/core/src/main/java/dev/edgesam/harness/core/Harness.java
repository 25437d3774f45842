package dev.edgesam.harness.core;

import java.io.Closeable;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Runs one job from a file in the harness's folder and tells everything about it as events. */
public final class Harness {
  private static final long LEAST_SPACE = 1 << 16;

  private final Runtimes runtimes;
  private final Probe probe;

  public Harness(Runtimes runtimes, Probe probe) {
    this.runtimes = runtimes;
    this.probe = probe;
  }

  /** Tells what the harness is and has, as a stream of one event that belongs to no job. */
  public void hello(Events.Sink live) throws IOException {
    List<Events.Sink> sinks = new ArrayList<Events.Sink>();
    sinks.add(live);
    new Events(null, sinks).send(hello());
  }

  /**
   * Runs a job. Whatever goes wrong is told as {@code error} and {@code end}.
   *
   * @param root the harness's folder.
   * @param request path of the job's file in that folder.
   * @param live where the events go, besides the kept stream {@code jobs/JOB.jsonl}.
   * @return {@code complete}, {@code failed} or {@code cancelled}.
   * @throws IOException the events cannot be written.
   */
  public String run(File root, String request, Events.Sink live) throws IOException {
    List<Events.Sink> sinks = new ArrayList<Events.Sink>();
    sinks.add(live);
    Events events = new Events(null, sinks);
    Closeable lock = null;
    Storage.Kept kept = null;
    try {
      Storage storage = new Storage(root);
      Map<String, Object> message = Json.object(storage.request(request));
      events = new Events(Job.idOf(message), sinks);
      Job job = Job.parse(message);
      lock = storage.lock();
      kept = storage.keep(job.id);
      sinks.add(0, kept); // first: what was seen of a job is always kept, too
      return run(job, storage, events);
    } catch (IOException e) {
      // What is kept cannot be written any more, or a file not be read; whoever still listens learns of it.
      return failed(events, Fault.of(root.getUsableSpace() < LEAST_SPACE ? "no-space" : "internal", e));
    } catch (Fault fault) {
      return failed(events, fault);
    } finally {
      close(kept);
      close(lock);
    }
  }

  private String run(Job job, Storage storage, Events events) throws IOException {
    events.send(hello());
    try {
      String status = new JobRun(job, storage, runtimes, probe, events).run();
      events.end(status);
      return status;
    } catch (Fault fault) {
      return failed(events, fault);
    } catch (JobRun.Cancelled e) {
      events.end("cancelled");
      return "cancelled";
    } catch (InterruptedException e) {
      events.end("cancelled");
      return "cancelled";
    } catch (LinkageError e) {
      return failed(events, Fault.of("load-failed", e)); // a runtime's library does not fit this device
    } catch (OutOfMemoryError e) {
      return failed(events, Fault.of("internal", e));
    } catch (RuntimeException e) {
      return failed(events, Fault.of("internal", e));
    }
  }

  private String failed(Events events, Fault fault) throws IOException {
    if (events.none()) {
      events.send(hello()); // refused before it began: the stream still begins as every stream does
    }
    Map<String, Object> event = Events.event("error");
    event.put("code", fault.code());
    event.put("message", fault.getMessage());
    event.put("hint", fault.hint());
    events.send(event);
    events.end("failed");
    return "failed";
  }

  private Map<String, Object> hello() {
    List<Object> list = new ArrayList<Object>();
    for (Runtimes.Info runtime : runtimes.all()) {
      Map<String, Object> one = new LinkedHashMap<String, Object>();
      one.put("name", runtime.name);
      one.put("version", runtime.version);
      one.put("formats", runtime.formats);
      one.put("delegates", runtime.delegates);
      list.add(one);
    }
    Map<String, Object> event = Events.event("hello");
    event.put("protocol", Job.PROTOCOL);
    event.put("harness", probe.harness());
    event.put("device", probe.device());
    event.put("runtimes", list);
    return event;
  }

  private static void close(Closeable closeable) throws IOException {
    if (closeable != null) {
      closeable.close();
    }
  }
}
