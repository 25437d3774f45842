package org.pytorch.executorch;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;

public abstract class Tensor {
  public static native Tensor fromBlob(FloatBuffer data, long[] shape);

  public static native Tensor fromBlobUnsigned(ByteBuffer data, long[] shape);

  public native float[] getDataAsFloatArray();
}
