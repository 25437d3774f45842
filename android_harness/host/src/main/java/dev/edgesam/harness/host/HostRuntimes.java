package dev.edgesam.harness.host;

import dev.edgesam.harness.core.Fault;
import dev.edgesam.harness.core.Runner;
import dev.edgesam.harness.core.Runtimes;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** The runtimes whose libraries were built; their versions come from who built them. */
final class HostRuntimes implements Runtimes {
  private static final List<String> DELEGATES = Collections.singletonList("xnnpack");
  private static final String EXECUTORCH = "ExecuTorch";

  private final List<Info> all = new ArrayList<Info>();

  HostRuntimes() {
    add("executorch", EXECUTORCH, "executorch-xnnpack");
    add("litert", "LiteRT", "tflite");
  }

  private void add(String property, String name, String format) {
    String version = System.getProperty(property);
    if (version != null) {
      all.add(new Info(name, version, Collections.singletonList(format), DELEGATES));
    }
  }

  @Override
  public List<Info> all() {
    return all;
  }

  @Override
  public Runner runner(String format, String runtime, String delegate) throws Fault {
    Info info = Info.choose(all, format, runtime, delegate);
    if (info == null) {
      throw new Fault("no-runtime", "nothing here executes " + format + (runtime == null ? "" : " with " + runtime));
    }
    return info.name.equals(EXECUTORCH) ? new ExecuTorchRunner() : new LiteRtRunner();
  }
}
