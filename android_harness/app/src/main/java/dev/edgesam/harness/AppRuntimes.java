package dev.edgesam.harness;

import android.content.Context;
import android.content.pm.PackageManager;
import android.os.Build;
import android.os.Bundle;
import dev.edgesam.harness.core.Fault;
import dev.edgesam.harness.core.Runner;
import dev.edgesam.harness.core.Runtimes;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** The runtimes that are packed into this app: an APK that is built without them has none. */
final class AppRuntimes implements Runtimes {
  private static final String LITERT = "LiteRT";
  private static final int NNAPI_SINCE = 27;

  private final List<Info> all = new ArrayList<Info>();

  AppRuntimes(Context context) {
    if (isHere("org.tensorflow.lite.Interpreter")) {
      List<String> delegates = new ArrayList<String>();
      delegates.add("xnnpack");
      delegates.add("cpu");
      if (isHere("org.tensorflow.lite.gpu.GpuDelegate")) {
        delegates.add("gpu");
      }
      if (Build.VERSION.SDK_INT >= NNAPI_SINCE && isHere("org.tensorflow.lite.nnapi.NnApiDelegate")) {
        delegates.add("nnapi");
      }
      all.add(new Info(LITERT, version(context, "litert"), Collections.singletonList("tflite"), delegates));
    }
    if (isHere("org.pytorch.executorch.Module")) {
      List<String> formats = Collections.singletonList("executorch-xnnpack");
      all.add(
          new Info("ExecuTorch", version(context, "executorch"), formats, Collections.singletonList("xnnpack")));
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
      throw new Fault("no-runtime", "nothing here runs " + format, "build the app with Gradle, which packs the runtimes");
    }
    String asked = delegate == null ? info.delegates.get(0) : delegate;
    return info.name.equals(LITERT) ? new TfliteRunner(asked) : new ExecuTorchRunner();
  }

  private static boolean isHere(String name) {
    try {
      // Not initialised: that would load the native library before anything is timed.
      Class.forName(name, false, AppRuntimes.class.getClassLoader());
      return true;
    } catch (ClassNotFoundException e) {
      return false;
    }
  }

  private static String version(Context context, String name) {
    try {
      Bundle data =
          context
              .getPackageManager()
              .getApplicationInfo(context.getPackageName(), PackageManager.GET_META_DATA)
              .metaData;
      return data.getString(name).substring(1); // a letter stands before it, so that it is no number
    } catch (PackageManager.NameNotFoundException e) {
      throw new IllegalStateException(e);
    }
  }
}
