package dev.edgesam.harness.core;

/** One input or output of a graph, as the manifest has it. */
public final class TensorSpec {
  static final long MOST_BYTES = 512L << 20;

  public final String name;
  public final int[] shape;
  public final String dtype;
  public final String layout;

  TensorSpec(String name, int[] shape, String dtype, String layout) {
    this.name = name;
    this.shape = shape;
    this.dtype = dtype;
    this.layout = layout;
  }

  static TensorSpec parse(Fields fields) throws Fault {
    double[] sides = fields.numbers("shape", 1, 8, 1, Integer.MAX_VALUE);
    int[] shape = new int[sides.length];
    String name = fields.text("name");
    String dtype = fields.text("dtype");
    if (!dtype.equals("float32") && !dtype.equals("float16") && !dtype.equals("uint8")) {
      throw fields.wrong("dtype", "float32, float16 or uint8");
    }
    double bytes = bytesOf(dtype);
    for (int i = 0; i < shape.length; i++) {
      shape[i] = (int) sides[i];
      if (shape[i] != sides[i]) {
        throw fields.wrong("shape", "whole numbers");
      }
      bytes *= sides[i];
    }
    if (bytes > MOST_BYTES) {
      throw new Fault("too-large", "the tensor " + name + " takes more than 512 MiB");
    }
    return new TensorSpec(name, shape, dtype, fields.text("layout"));
  }

  public int elements() {
    int elements = 1;
    for (int side : shape) {
      elements *= side;
    }
    return elements;
  }

  public int bytes() {
    return elements() * bytesOf(dtype);
  }

  private static int bytesOf(String dtype) {
    return dtype.equals("float32") ? 4 : dtype.equals("float16") ? 2 : 1;
  }
}
