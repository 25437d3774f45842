package dev.edgesam.harness.core;

import java.util.Map;

/** What a device tells of itself. Keys are the protocol's; what it does not tell is null or absent. */
public interface Probe {
  /** {@code hello}'s {@code harness}: name, version, build, debugger. */
  Map<String, Object> harness();

  /** {@code hello}'s {@code device}. */
  Map<String, Object> device();

  /** {@code state}'s fields but for its time. Takes milliseconds: never called within what is timed. */
  Map<String, Object> state();

  /** A monotonic clock in nanoseconds. */
  long nanos();

  void sleep(long millis) throws InterruptedException;
}
