package android.os;

public final class PowerManager {
  public static final int THERMAL_STATUS_LIGHT = 1;
  public static final int THERMAL_STATUS_MODERATE = 2;
  public static final int THERMAL_STATUS_SEVERE = 3;

  public native boolean isPowerSaveMode();

  public native int getCurrentThermalStatus();

  public native float getThermalHeadroom(int seconds);
}
