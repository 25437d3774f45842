package dev.edgesam.harness.core;

import java.io.Closeable;
import java.io.File;

/** An encoder and a decoder in a runtime. Opened once, used by one thread, closed once. */
public interface Runner extends Closeable {
  /**
   * Loads both graphs.
   *
   * @param cache a folder where the runtime may keep what makes its next load faster.
   * @throws Fault {@code load-failed}; {@code no-delegate} where the device does not have it.
   */
  void open(Job job, File encoder, File decoder, File cache) throws Fault;

  /** Runs the encoder: fills {@code outputs}, all tensors in the order of the job. */
  void encode(Tensor[] inputs, Tensor[] outputs) throws Fault;

  /** Runs the decoder: fills {@code outputs}, all tensors in the order of the job. */
  void decode(Tensor[] inputs, Tensor[] outputs) throws Fault;

  /** The delegate that really runs the graphs, or null where the runtime does not tell. */
  String applied();

  /** Threads that it really uses, or null where the runtime does not tell. */
  Integer threads();

  /** One line for people about how it runs, or null. */
  String note();

  @Override
  void close();
}
