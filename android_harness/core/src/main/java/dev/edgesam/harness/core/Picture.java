package dev.edgesam.harness.core;

import java.io.File;
import java.io.IOException;

/** A picture: RGB, three bytes a pixel, row by row. */
public final class Picture {
  static final int MOST_PIXELS = 1 << 26;

  public final int width;
  public final int height;
  public final byte[] rgb;

  public Picture(int width, int height, byte[] rgb) {
    if (rgb.length != 3 * width * height) {
      throw new IllegalArgumentException(rgb.length + " bytes for " + width + " x " + height + " pixels");
    }
    this.width = width;
    this.height = height;
    this.rgb = rgb;
  }

  /**
   * Reads a binary PPM of maximum 255.
   *
   * @throws Fault {@code bad-line} for another kind of file or one cut short, {@code too-large}.
   */
  public static Picture read(File file) throws Fault, IOException {
    Netpbm netpbm = Netpbm.open(file, "P6", 255);
    return new Picture(netpbm.width, netpbm.height, netpbm.pixels(3L * netpbm.width * netpbm.height));
  }
}
