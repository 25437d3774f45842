package dev.edgesam.harness.core;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/** What Linux tells in files, on a phone as elsewhere; null where a file is absent or may not be read. */
public final class ProcFiles {
  private ProcFiles() {}

  /** Bytes that this process held at most so far, shared pages included. */
  public static Long peakBytes() {
    return bytes(new File("/proc/self/status"), "VmHWM:");
  }

  /** The bytes of a line such as {@code VmRSS: 12 kB}. */
  public static Long bytes(File file, String name) {
    try {
      BufferedReader in = new BufferedReader(new FileReader(file));
      try {
        for (String line = in.readLine(); line != null; line = in.readLine()) {
          String[] words = line.split("\\s+");
          if (words.length > 1 && words[0].equals(name)) {
            return 1024 * Long.parseLong(words[1]);
          }
        }
        return null;
      } finally {
        in.close();
      }
    } catch (IOException e) {
      return null;
    } catch (NumberFormatException e) {
      return null;
    }
  }

  /** The clock of each core in kHz, null for one that does not tell; null if none does. */
  public static List<Long> clocksKhz(File cpus) {
    List<Long> clocks = new ArrayList<Long>();
    boolean told = false;
    for (int core = 0; new File(cpus, "cpu" + core).isDirectory(); core++) {
      Long clock = number(new File(cpus, "cpu" + core + "/cpufreq/scaling_cur_freq"));
      told |= clock != null;
      clocks.add(clock);
    }
    return told ? clocks : null;
  }

  private static Long number(File file) {
    try {
      BufferedReader in = new BufferedReader(new FileReader(file));
      try {
        String line = in.readLine();
        return line == null ? null : Long.valueOf(line.trim());
      } finally {
        in.close();
      }
    } catch (IOException e) {
      return null;
    } catch (NumberFormatException e) {
      return null; // such as "<unsupported>"
    }
  }
}
