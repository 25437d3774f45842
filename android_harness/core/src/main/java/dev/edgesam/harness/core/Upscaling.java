package dev.edgesam.harness.core;

/**
 * Enlarges mask logits, which cover the whole padded frame, to the picture: bilinearly to the frame, cut to the
 * resized picture, bilinearly to the picture. All three are linear, so each new row mixes few rows of the logits.
 */
final class Upscaling {
  private static final int TAPS = 4;

  private final Geometry geometry;
  private final int low;
  private final Axis rows;
  private final Axis columns;
  private final float[] mixed;

  /**
   * @param low side of the logits.
   * @param size side of the frame, at least {@code low}.
   */
  Upscaling(Geometry geometry, int low, int size) {
    this.geometry = geometry;
    this.low = low;
    rows = new Axis(low, size, geometry.resizedHeight, geometry.height);
    columns = new Axis(low, size, geometry.resizedWidth, geometry.width);
    mixed = new float[low];
  }

  /**
   * The mask at the picture's size.
   *
   * @param logits {@code low x low}, row by row.
   */
  void threshold(float[] logits, float threshold, Mask into) {
    for (int y = 0; y < geometry.height; y++) {
      mix(logits, y);
      int target = y * geometry.width;
      for (int x = 0; x < geometry.width; x++) {
        int first = columns.first[x];
        float sum = 0;
        for (int tap = 0; tap < TAPS; tap++) {
          sum += columns.weights[TAPS * x + tap] * mixed[Math.min(first + tap, low - 1)];
        }
        into.pixels[target + x] = (byte) (sum > threshold ? 1 : 0);
      }
    }
  }

  private void mix(float[] logits, int y) {
    java.util.Arrays.fill(mixed, 0);
    for (int tap = 0; tap < TAPS; tap++) {
      float weight = rows.weights[TAPS * y + tap];
      if (weight != 0) {
        int from = low * (rows.first[y] + tap);
        for (int x = 0; x < low; x++) {
          mixed[x] += weight * logits[from + x];
        }
      }
    }
  }

  /** Weights of {@code TAPS} neighbouring logits for each pixel of one side of the picture. */
  private static final class Axis {
    final int[] first;
    final float[] weights;

    Axis(int low, int size, int resized, int original) {
      first = new int[original];
      weights = new float[TAPS * original];
      for (int i = 0; i < original; i++) {
        double place = place(i, resized, original);
        int frame = (int) place;
        first[i] = (int) place(frame, low, size);
        double[] taps = new double[TAPS];
        add(taps, first[i], frame, 1 - (place - frame), low, size);
        add(taps, first[i], Math.min(frame + 1, resized - 1), place - frame, low, size);
        for (int tap = 0; tap < TAPS; tap++) {
          weights[TAPS * i + tap] = (float) taps[tap];
        }
      }
    }

    private static void add(double[] taps, int first, int frame, double share, int low, int size) {
      double place = place(frame, low, size);
      int at = (int) place;
      taps[at - first] += share * (1 - (place - at));
      taps[Math.min(at + 1, low - 1) - first] += share * (place - at);
    }

    /** Where sample {@code i} of {@code target} lies among {@code source} samples; centres are half a step in. */
    private static double place(int i, int source, int target) {
      double place = (i + 0.5) * ((double) source / target) - 0.5;
      return Math.max(0.0, Math.min(place, source - 1.0));
    }
  }
}
