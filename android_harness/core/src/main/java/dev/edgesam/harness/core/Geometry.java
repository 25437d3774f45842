package dev.edgesam.harness.core;

/** Between the pixels of a picture and the square frame that the encoder sees, longest side first, top left. */
public final class Geometry {
  public final int width;
  public final int height;
  public final int resizedWidth;
  public final int resizedHeight;

  /**
   * @param size side of the frame in pixels.
   */
  public Geometry(int width, int height, int size) {
    this.width = width;
    this.height = height;
    double scale = (double) size / Math.max(width, height);
    this.resizedWidth = Math.max(1, (int) (width * scale + 0.5));
    this.resizedHeight = Math.max(1, (int) (height * scale + 0.5));
  }

  /** A place from the picture, in pixels, to the frame, in pixels. */
  public float frameX(double x) {
    return (float) (x * ((double) resizedWidth / width));
  }

  /** As {@link #frameX}. */
  public float frameY(double y) {
    return (float) (y * ((double) resizedHeight / height));
  }
}
