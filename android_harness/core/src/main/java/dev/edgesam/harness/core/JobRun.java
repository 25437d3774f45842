package dev.edgesam.harness.core;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One job from its gate to its result. The check comes before anything is timed. */
final class JobRun {
  private static final long GATE_EVERY_MS = 1000;
  private static final int KERNEL_WARM_UP = 3;

  private final Job job;
  private final Storage storage;
  private final Runtimes runtimes;
  private final Probe probe;
  private final Events events;
  private final ReferenceKernel kernel = new ReferenceKernel();
  private long stateNs;

  JobRun(Job job, Storage storage, Runtimes runtimes, Probe probe, Events events) {
    this.job = job;
    this.storage = storage;
    this.runtimes = runtimes;
    this.probe = probe;
    this.events = events;
  }

  /** Thrown between frames when somebody wants the job to end early. */
  static final class Cancelled extends Exception {
    private static final long serialVersionUID = 1;
  }

  /** Runs the job; gives the status for {@code end}: {@code complete}, or {@code failed} by the check. */
  String run() throws Fault, Cancelled, IOException, InterruptedException {
    File encoder = storage.model(job.encoder);
    File decoder = storage.model(job.decoder);
    Picture picture = Picture.read(storage.file(job.frame.image));
    // Refuses what the harness does not have before anybody waits for the gate.
    runtimes.runner(job.format, job.runtime, job.delegate).close();
    gate();
    phase("check");
    if (!check(encoder, decoder)) {
      return "failed";
    }
    phase("load");
    for (int i = 0; i < KERNEL_WARM_UP; i++) {
      kernel.run();
    }
    timeKernel(0);
    Runner runner = load(encoder, decoder);
    try {
      measure(runner, picture);
    } finally {
      runner.close();
    }
    return "complete";
  }

  private void gate() throws Fault, Cancelled, IOException, InterruptedException {
    phase("gate");
    long began = probe.nanos();
    while (true) {
      Map<String, Object> state = state();
      String shut = job.gate == null ? null : job.gate.shutBy(state);
      if (shut == null) {
        return;
      }
      if (probe.nanos() - began >= job.gate.wait * 1e9) {
        throw new Fault("hot", "still " + shut + " after " + job.gate.wait + " s", "let the device cool down");
      }
      stopIfCancelled();
      probe.sleep(GATE_EVERY_MS);
    }
  }

  private boolean check(File encoder, File decoder) throws Fault, Cancelled, IOException {
    List<Object> masks = new ArrayList<Object>();
    boolean passed = true;
    Runner runner = runtimes.runner(job.format, job.runtime, job.delegate);
    try {
      Pipeline pipeline = new Pipeline(job, runner);
      pipeline.load(encoder, decoder, storage.emptyCache());
      for (Job.Golden golden : job.golden) {
        stopIfCancelled();
        Mask expected = Mask.read(storage.file(golden.mask));
        pipeline.use(Picture.read(storage.file(golden.image)));
        pipeline.pre();
        pipeline.encode();
        pipeline.decode(golden);
        double iou = pipeline.post().iou(expected);
        passed &= iou >= job.leastIou;
        Map<String, Object> mask = new LinkedHashMap<String, Object>();
        mask.put("iou", iou);
        mask.put("best_same", pipeline.best() == golden.best);
        masks.add(mask);
        stateIfDue();
      }
    } finally {
      runner.close();
    }
    Map<String, Object> event = Events.event("check");
    event.put("masks", masks);
    event.put("least_iou", job.leastIou);
    event.put("passed", passed);
    events.send(event);
    return passed;
  }

  /** Loads with an empty cache, and again where the runtime has put something into it. */
  private Runner load(File encoder, File decoder) throws Fault, IOException {
    File cache = storage.emptyCache();
    Runner runner = loadTimed("load-cold", encoder, decoder, cache);
    String[] kept = cache.list();
    if (kept != null && kept.length > 0) {
      runner.close();
      runner = loadTimed("load-cached", encoder, decoder, cache);
    }
    events.flush();
    return runner;
  }

  private Runner loadTimed(String stage, File encoder, File decoder, File cache) throws Fault {
    Runner runner = runtimes.runner(job.format, job.runtime, job.delegate);
    try {
      long began = probe.nanos();
      runner.open(job, encoder, decoder, cache);
      events.sample(stage, 0, began, probe.nanos());
      return runner;
    } catch (Fault fault) {
      runner.close();
      throw fault;
    }
  }

  private void measure(Runner runner, Picture picture) throws Fault, Cancelled, IOException {
    Pipeline pipeline = new Pipeline(job, runner);
    pipeline.use(picture);
    phase("first");
    frame(pipeline, "first-", 0);
    phase("warm-up");
    WarmUp warmUp = new WarmUp(job.warmUp, probe.nanos());
    while (!warmUp.over(probe.nanos())) {
      warmUp.took(frame(pipeline, "warm-", warmUp.rounds()));
    }
    phase("measure");
    long rounds = 0;
    long began = probe.nanos();
    while (rounds < job.rounds || probe.nanos() - began < job.seconds * 1e9) {
      frame(pipeline, "", rounds++);
    }
    timeKernel(1);
    state();
    Map<String, Object> settled = new LinkedHashMap<String, Object>();
    settled.put("rounds", warmUp.rounds());
    settled.put("stable", warmUp.stable());
    Map<String, Object> event = Events.event("result");
    event.put("requested", job.delegate);
    event.put("applied", runner.applied());
    event.put("threads", runner.threads());
    event.put("warm_up", settled);
    event.put("rounds", rounds);
    event.put("note", runner.note());
    events.send(event);
  }

  /** One whole frame, each step timed; what is written and read about it comes after the clock has stopped. */
  private long frame(Pipeline pipeline, String prefix, long round) throws Fault, Cancelled, IOException {
    stopIfCancelled();
    long began = probe.nanos();
    pipeline.pre();
    long prepared = probe.nanos();
    pipeline.encode();
    long encoded = probe.nanos();
    pipeline.decode(job.frame);
    long decoded = probe.nanos();
    pipeline.post();
    long ended = probe.nanos();
    events.sample(prefix + "pre", round, began, prepared);
    events.sample(prefix + "encode", round, prepared, encoded);
    events.sample(prefix + "decode", round, encoded, decoded);
    events.sample(prefix + "post", round, decoded, ended);
    events.sample(prefix + "frame", round, began, ended);
    events.flush();
    stateIfDue();
    return ended - began;
  }

  private void timeKernel(long round) throws IOException {
    long began = probe.nanos();
    double sum = kernel.run();
    long ended = probe.nanos();
    if (sum != ReferenceKernel.CHECKSUM) {
      throw new IllegalStateException("the reference kernel's checksum is " + sum);
    }
    events.sample("kernel", round, began, ended);
    events.flush();
  }

  private void stopIfCancelled() throws Cancelled {
    if (storage.cancelled(job.id)) {
      throw new Cancelled();
    }
  }

  private void stateIfDue() throws IOException {
    if (probe.nanos() - stateNs >= job.stateEvery * 1e9) {
      state();
    }
  }

  private Map<String, Object> state() throws IOException {
    Map<String, Object> state = probe.state();
    stateNs = probe.nanos();
    Map<String, Object> event = Events.event("state");
    event.put("at_ns", stateNs);
    event.putAll(state);
    events.send(event);
    return state;
  }

  private void phase(String name) throws IOException {
    Map<String, Object> event = Events.event("phase");
    event.put("name", name);
    event.put("at_ns", probe.nanos());
    events.send(event);
  }
}
