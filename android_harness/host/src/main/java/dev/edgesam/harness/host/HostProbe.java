package dev.edgesam.harness.host;

import dev.edgesam.harness.core.Probe;
import dev.edgesam.harness.core.ProcFiles;
import java.io.File;
import java.util.LinkedHashMap;
import java.util.Map;

/** What Linux tells of this machine. It has no thermal status in Android's sense, and often no battery. */
final class HostProbe implements Probe {
  @Override
  public Map<String, Object> harness() {
    Map<String, Object> harness = new LinkedHashMap<String, Object>();
    harness.put("name", "edgesam-mobile host harness");
    harness.put("version", System.getProperty("harness"));
    harness.put("build", "release");
    harness.put("debugger", false);
    return harness;
  }

  @Override
  public Map<String, Object> device() {
    Map<String, Object> device = new LinkedHashMap<String, Object>();
    device.put("id", null);
    device.put("class", "host");
    device.put("os", System.getProperty("os.name"));
    device.put("os_version", System.getProperty("os.version"));
    device.put("cores", Runtime.getRuntime().availableProcessors());
    device.put("memory_bytes", ProcFiles.bytes(new File("/proc/meminfo"), "MemTotal:"));
    device.put("abi", System.getProperty("os.arch"));
    return device;
  }

  @Override
  public Map<String, Object> state() {
    Map<String, Object> memory = new LinkedHashMap<String, Object>();
    memory.put("bytes", ProcFiles.bytes(new File("/proc/self/status"), "VmRSS:"));
    memory.put("peak_bytes", ProcFiles.peakBytes());
    Map<String, Object> state = new LinkedHashMap<String, Object>();
    state.put("clocks_khz", ProcFiles.clocksKhz(new File("/sys/devices/system/cpu")));
    state.put("memory", memory);
    return state;
  }

  @Override
  public long nanos() {
    return System.nanoTime();
  }

  @Override
  public void sleep(long millis) throws InterruptedException {
    Thread.sleep(millis);
  }
}
