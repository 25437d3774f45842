package dev.edgesam.harness.host;

import dev.edgesam.harness.core.Fault;
import dev.edgesam.harness.core.Job;
import dev.edgesam.harness.core.Runner;
import dev.edgesam.harness.core.Tensor;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** A runner whose runtime is a shared library of this machine. */
abstract class NativeRunner implements Runner {
  private long encoder;
  private long decoder;
  private Integer threads;

  /** Loads a graph; gives a handle. {@code threads} is 0 for the runtime's own choice. */
  abstract long load(byte[] path, int threads);

  /** Runs a graph: direct buffers, one an input or output; names end in 0, shapes are in one row. */
  abstract void run(
      long graph, ByteBuffer[] inputs, byte[][] names, int[][] shapes, int[] types, ByteBuffer[] outputs, byte[][] outputNames);

  /** Whether XNNPACK runs the graph: all of it where the runtime can tell that, else any of it. */
  abstract boolean accelerated(long graph);

  abstract void free(long graph);

  @Override
  public void open(Job job, File encoderFile, File decoderFile, File cache) throws Fault {
    threads = job.threads;
    int count = threads == null ? 0 : threads;
    try {
      encoder = load(text(encoderFile.getPath()), count);
      decoder = load(text(decoderFile.getPath()), count);
    } catch (RuntimeException e) {
      throw Fault.of("load-failed", e);
    }
  }

  @Override
  public void encode(Tensor[] inputs, Tensor[] outputs) throws Fault {
    run(encoder, inputs, outputs);
  }

  @Override
  public void decode(Tensor[] inputs, Tensor[] outputs) throws Fault {
    run(decoder, inputs, outputs);
  }

  private void run(long graph, Tensor[] inputs, Tensor[] outputs) throws Fault {
    int[][] shapes = new int[inputs.length][];
    int[] types = new int[inputs.length];
    for (int i = 0; i < inputs.length; i++) {
      shapes[i] = inputs[i].spec.shape;
      types[i] = inputs[i].spec.dtype.equals("float32") ? 4 : inputs[i].spec.dtype.equals("float16") ? 2 : 1;
    }
    try {
      run(graph, buffers(inputs), names(inputs), shapes, types, buffers(outputs), names(outputs));
    } catch (RuntimeException e) {
      throw Fault.of("run-failed", e);
    }
  }

  private static ByteBuffer[] buffers(Tensor[] tensors) {
    ByteBuffer[] buffers = new ByteBuffer[tensors.length];
    for (int i = 0; i < buffers.length; i++) {
      buffers[i] = tensors[i].data;
    }
    return buffers;
  }

  private static byte[][] names(Tensor[] tensors) {
    byte[][] names = new byte[tensors.length][];
    for (int i = 0; i < names.length; i++) {
      names[i] = text(tensors[i].spec.name);
    }
    return names;
  }

  private static byte[] text(String text) {
    return (text + "\0").getBytes(StandardCharsets.UTF_8);
  }

  @Override
  public String applied() {
    return accelerated(encoder) && accelerated(decoder) ? "xnnpack" : null;
  }

  @Override
  public Integer threads() {
    return threads;
  }

  @Override
  public String note() {
    String read = "the file was read before load-cold: the check comes first";
    return applied() != null ? read : "XNNPACK does not run every operation; " + read;
  }

  @Override
  public void close() {
    free(encoder);
    free(decoder);
    encoder = 0;
    decoder = 0;
  }
}
