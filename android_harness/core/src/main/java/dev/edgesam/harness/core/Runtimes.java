package dev.edgesam.harness.core;

import java.util.List;

/** The runtimes of a harness. */
public interface Runtimes {
  List<Info> all();

  /**
   * A runner for a format, not yet opened.
   *
   * @param runtime a name of {@link #all}, or null for the format's own.
   * @param delegate null for the runtime's first.
   * @throws Fault {@code no-runtime}, {@code no-delegate}.
   */
  Runner runner(String format, String runtime, String delegate) throws Fault;

  /** What {@code hello} says of one runtime. */
  final class Info {
    public final String name;
    public final String version;
    public final List<String> formats;
    public final List<String> delegates;

    public Info(String name, String version, List<String> formats, List<String> delegates) {
      this.name = name;
      this.version = version;
      this.formats = formats;
      this.delegates = delegates;
    }

    /**
     * The first of {@code all} that loads {@code format} and is {@code runtime}, where one is named; or null.
     *
     * @throws Fault {@code no-delegate}: it has none of that name.
     */
    public static Info choose(List<Info> all, String format, String runtime, String delegate) throws Fault {
      for (Info info : all) {
        if (info.formats.contains(format) && (runtime == null || runtime.equals(info.name))) {
          if (delegate != null && !info.delegates.contains(delegate)) {
            throw new Fault("no-delegate", info.name + " has " + info.delegates + " here, not " + delegate);
          }
          return info;
        }
      }
      return null;
    }
  }
}
