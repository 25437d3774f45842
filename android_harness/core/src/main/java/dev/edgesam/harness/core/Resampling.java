package dev.edgesam.harness.core;

/**
 * Resizes pictures bilinearly, smoothing while it shrinks, with the numbers that Pillow's BILINEAR gives: weights
 * in 22-bit fixed point, along rows first, both passes rounded to bytes. Pillow 13 begins along columns for pictures
 * at least twice as high as wide; bytes then differ by one at most. Made once for a pair of sizes.
 */
final class Resampling {
  private static final int BITS = 22;

  private final int width;
  private final int height;
  private final int newWidth;
  private final int newHeight;
  private final Axis columns;
  private final Axis rows;
  private final byte[] narrowed;
  private final byte[] resized;

  Resampling(int width, int height, int newWidth, int newHeight) {
    this.width = width;
    this.height = height;
    this.newWidth = newWidth;
    this.newHeight = newHeight;
    columns = width == newWidth ? null : new Axis(width, newWidth);
    rows = height == newHeight ? null : new Axis(height, newHeight);
    narrowed = columns == null ? null : new byte[3 * newWidth * height];
    resized = rows == null ? null : new byte[3 * newWidth * newHeight];
  }

  /** RGB, {@code newHeight x newWidth x 3} bytes; valid until the next call, or {@code rgb} itself if nothing changes. */
  byte[] apply(byte[] rgb) {
    byte[] narrow = rgb;
    if (columns != null) {
      narrow = narrowed;
      alongRows(rgb);
    }
    if (rows == null) {
      return narrow;
    }
    alongColumns(narrow);
    return resized;
  }

  private void alongRows(byte[] rgb) {
    for (int y = 0; y < height; y++) {
      int source = 3 * width * y;
      int target = 3 * newWidth * y;
      for (int x = 0; x < newWidth; x++) {
        int r = 1 << (BITS - 1);
        int g = r;
        int b = r;
        int from = source + 3 * columns.first[x];
        for (int k = columns.begin[x]; k < columns.begin[x + 1]; k++, from += 3) {
          int weight = columns.weights[k];
          r += (rgb[from] & 0xff) * weight;
          g += (rgb[from + 1] & 0xff) * weight;
          b += (rgb[from + 2] & 0xff) * weight;
        }
        narrowed[target++] = clipped(r);
        narrowed[target++] = clipped(g);
        narrowed[target++] = clipped(b);
      }
    }
  }

  private void alongColumns(byte[] narrow) {
    int stride = 3 * newWidth;
    int[] sums = new int[stride];
    for (int y = 0; y < newHeight; y++) {
      java.util.Arrays.fill(sums, 1 << (BITS - 1));
      int from = stride * rows.first[y];
      for (int k = rows.begin[y]; k < rows.begin[y + 1]; k++, from += stride) {
        int weight = rows.weights[k];
        for (int x = 0; x < stride; x++) {
          sums[x] += (narrow[from + x] & 0xff) * weight;
        }
      }
      int target = stride * y;
      for (int x = 0; x < stride; x++) {
        resized[target + x] = clipped(sums[x]);
      }
    }
  }

  private static byte clipped(int sum) {
    return (byte) Math.max(0, Math.min(255, sum >> BITS));
  }

  /** Which samples each new sample mixes: from {@code first[i]} on, with {@code weights[begin[i] .. begin[i + 1]]}. */
  private static final class Axis {
    final int[] first;
    final int[] begin;
    final int[] weights;

    Axis(int size, int newSize) {
      double scale = (double) size / newSize;
      double reach = Math.max(scale, 1.0);
      first = new int[newSize];
      begin = new int[newSize + 1];
      int[] found = new int[newSize * ((int) Math.ceil(reach) * 2 + 1)];
      int count = 0;
      for (int i = 0; i < newSize; i++) {
        double centre = (i + 0.5) * scale;
        first[i] = Math.max(0, (int) (centre - reach + 0.5));
        int end = Math.min(size, (int) (centre + reach + 0.5));
        double total = 0;
        for (int j = first[i]; j < end; j++) {
          total += triangle(j, centre, reach);
        }
        for (int j = first[i]; j < end; j++) {
          found[count++] = (int) (triangle(j, centre, reach) / total * (1 << BITS) + 0.5);
        }
        begin[i + 1] = count;
      }
      weights = java.util.Arrays.copyOf(found, count);
    }

    private static double triangle(int sample, double centre, double reach) {
      return Math.max(0.0, 1.0 - Math.abs((sample - centre + 0.5) * (1.0 / reach)));
    }
  }
}
