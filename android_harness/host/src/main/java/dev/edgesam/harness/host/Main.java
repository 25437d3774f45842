package dev.edgesam.harness.host;

import dev.edgesam.harness.core.Events;
import dev.edgesam.harness.core.Harness;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/**
 * Runs one job as the app does: {@code Main FOLDER JOB [PREFIX]} prints its events, each behind the prefix. An empty
 * {@code JOB} gives {@code hello} alone.
 */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) throws IOException {
    final String prefix = arguments.length > 2 ? arguments[2] : "";
    final OutputStream out = new FileOutputStream(FileDescriptor.out);
    Events.Sink live =
        new Events.Sink() {
          @Override
          public void line(String json) throws IOException {
            out.write((prefix + json + "\n").getBytes(StandardCharsets.US_ASCII));
          }
        };
    Harness harness = new Harness(new HostRuntimes(), new HostProbe());
    if (arguments[1].isEmpty()) {
      harness.hello(live);
      return;
    }
    String status = harness.run(new File(arguments[0]), arguments[1], live);
    System.exit(status.equals("complete") ? 0 : 1);
  }
}
