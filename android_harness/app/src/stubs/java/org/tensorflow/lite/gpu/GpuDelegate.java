package org.tensorflow.lite.gpu;

import org.tensorflow.lite.Delegate;

public class GpuDelegate implements Delegate {
  public GpuDelegate(GpuDelegateFactory.Options options) {}

  @Override
  public native long getNativeHandle();
}
