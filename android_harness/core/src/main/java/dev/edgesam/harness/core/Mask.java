package dev.edgesam.harness.core;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** A mask: one byte a pixel, row by row, 1 for the object. */
public final class Mask {
  public final int width;
  public final int height;
  public final byte[] pixels;

  public Mask(int width, int height) {
    this.width = width;
    this.height = height;
    this.pixels = new byte[width * height];
  }

  /**
   * Reads a binary PBM, 1 = object.
   *
   * @throws Fault {@code bad-line} for another kind of file or one cut short, {@code too-large}.
   */
  public static Mask read(File file) throws Fault, IOException {
    Netpbm netpbm = Netpbm.open(file, "P4", 1);
    int stride = (netpbm.width + 7) / 8;
    byte[] packed = netpbm.pixels((long) stride * netpbm.height);
    Mask mask = new Mask(netpbm.width, netpbm.height);
    for (int y = 0; y < mask.height; y++) {
      for (int x = 0; x < mask.width; x++) {
        mask.pixels[y * mask.width + x] = (byte) ((packed[y * stride + x / 8] >> (7 - x % 8)) & 1);
      }
    }
    return mask;
  }

  /** The mask as a binary PBM. */
  public byte[] pbm() {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    byte[] head = ("P4\n" + width + " " + height + "\n").getBytes(StandardCharsets.US_ASCII);
    out.write(head, 0, head.length);
    int stride = (width + 7) / 8;
    byte[] row = new byte[stride];
    for (int y = 0; y < height; y++) {
      java.util.Arrays.fill(row, (byte) 0);
      for (int x = 0; x < width; x++) {
        row[x / 8] |= (byte) (pixels[y * width + x] << (7 - x % 8));
      }
      out.write(row, 0, stride);
    }
    return out.toByteArray();
  }

  /** Intersection over union, 0 to 1: 1 for two empty masks, 0 for masks of different sizes. */
  public double iou(Mask other) {
    if (width != other.width || height != other.height) {
      return 0;
    }
    long both = 0;
    long either = 0;
    for (int i = 0; i < pixels.length; i++) {
      both += pixels[i] & other.pixels[i];
      either += pixels[i] | other.pixels[i];
    }
    return either == 0 ? 1 : (double) both / either;
  }
}
