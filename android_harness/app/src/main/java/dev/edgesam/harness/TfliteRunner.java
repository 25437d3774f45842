package dev.edgesam.harness;

import dev.edgesam.harness.core.Fault;
import dev.edgesam.harness.core.Job;
import dev.edgesam.harness.core.Runner;
import dev.edgesam.harness.core.Tensor;
import java.io.File;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.gpu.GpuDelegate;
import org.tensorflow.lite.gpu.GpuDelegateFactory;
import org.tensorflow.lite.nnapi.NnApiDelegate;

/** LiteRT by TFLite's Java API: operators on the CPU, XNNPACK, the GPU delegate or NNAPI. */
final class TfliteRunner implements Runner {
  private final String delegate;
  private final List<Delegate> made = new ArrayList<Delegate>();
  private Interpreter encoder;
  private Interpreter decoder;
  private Integer threads;

  TfliteRunner(String delegate) {
    this.delegate = delegate;
  }

  @Override
  public void open(Job job, File encoderFile, File decoderFile, File cache) throws Fault {
    threads = delegate.equals("gpu") || delegate.equals("nnapi") ? null : job.threads;
    encoder = load(encoderFile, job.encoder.sha256, cache);
    decoder = load(decoderFile, job.decoder.sha256, cache);
  }

  private Interpreter load(File file, String token, File cache) throws Fault {
    Interpreter.Options options = new Interpreter.Options();
    options.setUseXNNPACK(delegate.equals("xnnpack"));
    if (threads != null) {
      options.setNumThreads(threads);
    }
    if (delegate.equals("gpu") || delegate.equals("nnapi")) {
      options.addDelegate(delegate(token, cache));
    }
    try {
      return new Interpreter(file, options);
    } catch (RuntimeException e) {
      throw Fault.of("load-failed", e);
    } catch (LinkageError e) {
      throw Fault.of("load-failed", e);
    }
  }

  private Delegate delegate(String token, File cache) throws Fault {
    try {
      Delegate one = delegate.equals("gpu") ? gpu(token, cache) : nnapi(token, cache);
      made.add(one);
      return one;
    } catch (RuntimeException e) {
      throw Fault.of("no-delegate", e);
    } catch (LinkageError e) {
      throw Fault.of("no-delegate", e);
    }
  }

  private static Delegate gpu(String token, File cache) {
    GpuDelegateFactory.Options options = new GpuDelegateFactory.Options();
    options.setSerializationParams(cache.getPath(), token);
    return new GpuDelegate(options);
  }

  private static Delegate nnapi(String token, File cache) {
    NnApiDelegate.Options options = new NnApiDelegate.Options();
    options.setCacheDir(cache.getPath());
    options.setModelToken(token);
    return new NnApiDelegate(options);
  }

  @Override
  public void encode(Tensor[] inputs, Tensor[] outputs) throws Fault {
    run(encoder, inputs, outputs);
  }

  @Override
  public void decode(Tensor[] inputs, Tensor[] outputs) throws Fault {
    run(decoder, inputs, outputs);
  }

  private static void run(Interpreter interpreter, Tensor[] inputs, Tensor[] outputs) throws Fault {
    try {
      interpreter.runSignature(byName(inputs), byName(outputs));
    } catch (RuntimeException e) {
      throw Fault.of("run-failed", e);
    }
  }

  private static Map<String, Object> byName(Tensor[] tensors) {
    Map<String, Object> named = new LinkedHashMap<String, Object>();
    for (Tensor tensor : tensors) {
      tensor.data.clear(); // reading and writing moves the buffer's position
      named.put(tensor.spec.name, tensor.data);
    }
    return named;
  }

  @Override
  public String applied() {
    // What a delegate leaves, or all of it, TFLite runs on the CPU silently.
    return delegate.equals("cpu") ? "cpu" : null;
  }

  @Override
  public Integer threads() {
    return threads;
  }

  @Override
  public String note() {
    return delegate.equals("cpu") ? null : "how many operations " + delegate + " took is not told by TFLite";
  }

  @Override
  public void close() {
    if (encoder != null) {
      encoder.close();
      encoder = null;
    }
    if (decoder != null) {
      decoder.close();
      decoder = null;
    }
    for (Delegate one : made) {
      one.close();
    }
    made.clear();
  }
}
