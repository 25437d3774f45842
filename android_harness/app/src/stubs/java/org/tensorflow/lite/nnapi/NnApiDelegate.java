package org.tensorflow.lite.nnapi;

import org.tensorflow.lite.Delegate;

public class NnApiDelegate implements Delegate {
  public static final class Options {
    public native Options setCacheDir(String folder);

    public native Options setModelToken(String token);
  }

  public NnApiDelegate(Options options) {}

  @Override
  public native long getNativeHandle();
}
