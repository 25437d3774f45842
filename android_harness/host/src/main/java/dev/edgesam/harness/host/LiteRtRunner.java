package dev.edgesam.harness.host;

import java.nio.ByteBuffer;

/** The shared library beside litert.cpp. */
final class LiteRtRunner extends NativeRunner {
  static {
    System.loadLibrary("edgesam_litert");
  }

  @Override
  native long load(byte[] path, int threads);

  @Override
  native void run(
      long graph, ByteBuffer[] inputs, byte[][] names, int[][] shapes, int[] types, ByteBuffer[] outputs, byte[][] outputNames);

  @Override
  native boolean accelerated(long graph);

  @Override
  native void free(long graph);
}
