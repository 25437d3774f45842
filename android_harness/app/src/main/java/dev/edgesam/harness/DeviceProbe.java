package dev.edgesam.harness;

import android.app.ActivityManager;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.content.pm.ApplicationInfo;
import android.content.pm.PackageManager;
import android.os.BatteryManager;
import android.os.Build;
import android.os.Debug;
import android.os.PowerManager;
import android.provider.Settings;
import dev.edgesam.harness.core.Probe;
import dev.edgesam.harness.core.ProcFiles;
import java.io.File;
import java.util.LinkedHashMap;
import java.util.Map;

/** What Android tells of a device; what it does not tell, or only newer versions tell, is null. */
final class DeviceProbe implements Probe {
  private final Context context;
  private final PowerManager power;

  DeviceProbe(Context context) {
    this.context = context;
    this.power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
  }

  @Override
  public Map<String, Object> harness() {
    boolean debug = (context.getApplicationInfo().flags & ApplicationInfo.FLAG_DEBUGGABLE) != 0;
    Map<String, Object> harness = new LinkedHashMap<String, Object>();
    harness.put("name", "edgesam-mobile for Android");
    harness.put("version", version());
    harness.put("build", debug ? "debug" : "release");
    harness.put("debugger", Debug.isDebuggerConnected());
    return harness;
  }

  @Override
  public Map<String, Object> device() {
    ActivityManager.MemoryInfo memory = new ActivityManager.MemoryInfo();
    ((ActivityManager) context.getSystemService(Context.ACTIVITY_SERVICE)).getMemoryInfo(memory);
    Map<String, Object> device = new LinkedHashMap<String, Object>();
    device.put("id", Settings.Secure.getString(context.getContentResolver(), Settings.Secure.ANDROID_ID));
    device.put("class", isEmulator() ? "emulator" : "android");
    device.put("maker", Build.MANUFACTURER);
    device.put("model", Build.MODEL);
    device.put("os", "Android");
    device.put("os_version", Build.VERSION.RELEASE);
    device.put("soc", soc());
    device.put("cores", Runtime.getRuntime().availableProcessors());
    device.put("memory_bytes", memory.totalMem);
    device.put("abi", Build.SUPPORTED_ABIS[0]);
    return device;
  }

  @Override
  public Map<String, Object> state() {
    Map<String, Object> state = new LinkedHashMap<String, Object>();
    state.put("thermal", thermal());
    state.put("headroom", headroom());
    state.put("battery", battery());
    state.put("low_power", power.isPowerSaveMode());
    state.put("clocks_khz", ProcFiles.clocksKhz(new File("/sys/devices/system/cpu")));
    state.put("memory", memory());
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

  private String version() {
    try {
      return context.getPackageManager().getPackageInfo(context.getPackageName(), 0).versionName;
    } catch (PackageManager.NameNotFoundException e) {
      throw new IllegalStateException(e);
    }
  }

  private static boolean isEmulator() {
    return Build.HARDWARE.equals("ranchu") || Build.HARDWARE.equals("goldfish") || Build.HARDWARE.equals("cutf_cvm");
  }

  private static String soc() {
    if (Build.VERSION.SDK_INT < 31 || Build.SOC_MODEL.equals(Build.UNKNOWN)) {
      return null;
    }
    return Build.SOC_MANUFACTURER.equals(Build.UNKNOWN)
        ? Build.SOC_MODEL
        : Build.SOC_MANUFACTURER + " " + Build.SOC_MODEL;
  }

  private String thermal() {
    if (Build.VERSION.SDK_INT < 29) {
      return null;
    }
    int status = power.getCurrentThermalStatus();
    if (status <= PowerManager.THERMAL_STATUS_LIGHT) {
      return "nominal";
    }
    if (status == PowerManager.THERMAL_STATUS_MODERATE) {
      return "fair";
    }
    return status == PowerManager.THERMAL_STATUS_SEVERE ? "serious" : "critical";
  }

  /** 1.0 is where the device begins to throttle severely; asked more often than once a second, it is not told. */
  private Float headroom() {
    float headroom = Build.VERSION.SDK_INT < 30 ? Float.NaN : power.getThermalHeadroom(0);
    return Float.isNaN(headroom) ? null : headroom;
  }

  private Map<String, Object> battery() {
    Intent told = context.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED));
    if (told == null) {
      return null;
    }
    int level = told.getIntExtra(BatteryManager.EXTRA_LEVEL, -1);
    int scale = told.getIntExtra(BatteryManager.EXTRA_SCALE, -1);
    int status = told.getIntExtra(BatteryManager.EXTRA_STATUS, BatteryManager.BATTERY_STATUS_UNKNOWN);
    int tenths = told.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Integer.MIN_VALUE);
    boolean full = status == BatteryManager.BATTERY_STATUS_FULL;
    Map<String, Object> battery = new LinkedHashMap<String, Object>();
    battery.put("level", level < 0 || scale <= 0 ? null : (double) level / scale);
    battery.put(
        "charging",
        status == BatteryManager.BATTERY_STATUS_UNKNOWN
            ? null
            : (Object) (full || status == BatteryManager.BATTERY_STATUS_CHARGING));
    battery.put("celsius", tenths == Integer.MIN_VALUE ? null : tenths / 10.0);
    return battery;
  }

  /** Proportional size now (shared pages by their share); at most so far only the resident size is known. */
  private static Map<String, Object> memory() {
    Map<String, Object> memory = new LinkedHashMap<String, Object>();
    memory.put("bytes", Debug.getPss() * 1024);
    memory.put("peak_bytes", ProcFiles.peakBytes());
    return memory;
  }
}
