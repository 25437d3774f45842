package dev.edgesam.harness.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A tensor's numbers in a direct buffer, row by row, in the machine's byte order. Made once, filled many times. */
public final class Tensor {
  public final TensorSpec spec;
  public final ByteBuffer data;

  public Tensor(TensorSpec spec) {
    this.spec = spec;
    this.data = ByteBuffer.allocateDirect(spec.bytes()).order(ByteOrder.nativeOrder());
  }

  /** The number at {@code index}, whatever the type. */
  public float get(int index) {
    if (spec.dtype.equals("float32")) {
      return data.getFloat(4 * index);
    }
    if (spec.dtype.equals("float16")) {
      return fromHalf(data.getShort(2 * index));
    }
    return data.get(index) & 0xff;
  }

  /** Copies the first numbers into {@code target}. */
  void read(float[] target) {
    if (spec.dtype.equals("float32")) {
      data.rewind();
      data.asFloatBuffer().get(target);
      return;
    }
    for (int i = 0; i < target.length; i++) {
      target[i] = get(i);
    }
  }

  static Tensor[] of(TensorSpec[] specs) {
    Tensor[] tensors = new Tensor[specs.length];
    for (int i = 0; i < specs.length; i++) {
      tensors[i] = new Tensor(specs[i]);
    }
    return tensors;
  }

  /** The one called {@code name}. */
  static Tensor named(Tensor[] tensors, String name) throws Fault {
    for (Tensor tensor : tensors) {
      if (tensor.spec.name.equals(name)) {
        return tensor;
      }
    }
    throw new Fault("bad-line", "the graph has no tensor " + name);
  }

  static float fromHalf(short half) {
    int exponent = (half >> 10) & 31;
    int fraction = half & 1023;
    float size;
    if (exponent == 0) {
      size = fraction * 0x1p-24f;
    } else if (exponent == 31) {
      size = fraction == 0 ? Float.POSITIVE_INFINITY : Float.NaN;
    } else {
      size = (1024 + fraction) * (float) Math.pow(2, exponent - 25);
    }
    return half < 0 ? -size : size;
  }
}
