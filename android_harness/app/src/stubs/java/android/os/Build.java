package android.os;

/** Fields get their values by a call, so that no constant of this file ends up in what is compiled against it. */
public class Build {
  public static final String UNKNOWN = "unknown";
  public static final String HARDWARE = told();
  public static final String MANUFACTURER = told();
  public static final String MODEL = told();
  public static final String SOC_MANUFACTURER = told();
  public static final String SOC_MODEL = told();
  public static final String[] SUPPORTED_ABIS = {told()};

  private static native String told();

  public static class VERSION {
    public static final String RELEASE = told();
    public static final int SDK_INT = Integer.parseInt(told());
  }
}
