package dev.edgesam.harness;

import android.content.Context;
import dev.edgesam.harness.core.Harness;
import java.io.File;
import java.io.IOException;

/** The harness as this app has it. */
final class HarnessApp {
  private HarnessApp() {}

  static Harness harness(Context context) {
    return new Harness(new AppRuntimes(context), new DeviceProbe(context));
  }

  /** The harness's folder: the app's own, which {@code adb push} reaches and no permission is needed for. */
  static File folder(Context context) throws IOException {
    File folder = context.getExternalFilesDir(null);
    if (folder == null) {
      throw new IOException("the device's shared storage is not there");
    }
    for (String name : new String[] {"models", "inputs", "jobs"}) {
      new File(folder, name).mkdirs();
    }
    return folder;
  }
}
