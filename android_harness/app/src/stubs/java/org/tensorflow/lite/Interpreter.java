package org.tensorflow.lite;

import java.io.File;
import java.util.Map;

public final class Interpreter implements AutoCloseable {
  public static class Options {
    public native Options setNumThreads(int threads);

    public native Options setUseXNNPACK(boolean use);

    public native Options addDelegate(Delegate delegate);
  }

  public Interpreter(File model, Options options) {}

  public native void runSignature(Map<String, Object> inputs, Map<String, Object> outputs);

  @Override
  public native void close();
}
