package dev.edgesam.harness.core;

/**
 * The same fixed arithmetic everywhere, to compare a device with itself on another day: {@link #ROUNDS} products of
 * two matrices of {@link #SIDE} x {@link #SIDE} small whole numbers in single precision, in loops over i, k, j. All
 * sums are whole and below 2^24, hence exact, so the checksum is the same on every processor.
 */
final class ReferenceKernel {
  static final int SIDE = 128;
  static final int ROUNDS = 20;
  static final double CHECKSUM = 9283857;

  private final float[] left = new float[SIDE * SIDE];
  private final float[] right = new float[SIDE * SIDE];
  private final float[] product = new float[SIDE * SIDE];

  ReferenceKernel() {
    for (int i = 0; i < left.length; i++) {
      left[i] = i * 7 % 11 - 5;
      right[i] = i * 5 % 13 - 6;
    }
  }

  /** Computes all products; gives the sum of absolute values over all of them. */
  double run() {
    double sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
      java.util.Arrays.fill(product, 0);
      left[0] = round % 3;
      for (int i = 0; i < SIDE; i++) {
        for (int k = 0; k < SIDE; k++) {
          float factor = left[i * SIDE + k];
          for (int j = 0; j < SIDE; j++) {
            product[i * SIDE + j] += factor * right[k * SIDE + j];
          }
        }
      }
      for (float value : product) {
        sum += Math.abs(value);
      }
    }
    return sum;
  }
}
