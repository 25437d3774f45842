package dev.edgesam.harness.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** When a warm-up is over: the medians of the last two windows differ by less than a tolerance, or a limit is met. */
final class WarmUp {
  private final Limits limits;
  private final long begunNs;
  private final List<Long> times = new ArrayList<Long>();

  WarmUp(Limits limits, long begunNs) {
    this.limits = limits;
    this.begunNs = begunNs;
  }

  void took(long ns) {
    times.add(ns);
  }

  int rounds() {
    return times.size();
  }

  boolean over(long nowNs) {
    return stable() || times.size() >= limits.rounds || nowNs - begunNs >= limits.seconds * 1e9;
  }

  boolean stable() {
    int end = times.size();
    if (end < 2 * limits.window) {
      return false;
    }
    double before = median(times.subList(end - 2 * limits.window, end - limits.window));
    double last = median(times.subList(end - limits.window, end));
    return Math.abs(last - before) < limits.tolerance * before;
  }

  private static double median(List<Long> times) {
    Long[] sorted = times.toArray(new Long[0]);
    Arrays.sort(sorted);
    int half = sorted.length / 2;
    return sorted.length % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2.0;
  }

  /** Rounds and seconds at most, frames a window, and the relative difference of medians. */
  static final class Limits {
    final long rounds;
    final double seconds;
    final int window;
    final double tolerance;

    Limits(Fields fields) throws Fault {
      this(
          fields.whole("rounds", 0, Long.MAX_VALUE),
          fields.number("seconds", 0, 24 * 3600),
          (int) fields.whole("window", 1, 1 << 20),
          fields.number("tolerance", 0, 1e9));
    }

    Limits(long rounds, double seconds, int window, double tolerance) {
      this.rounds = rounds;
      this.seconds = seconds;
      this.window = window;
      this.tolerance = tolerance;
    }
  }
}
