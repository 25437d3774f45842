package dev.edgesam.harness;

import dev.edgesam.harness.core.Fault;
import dev.edgesam.harness.core.Job;
import dev.edgesam.harness.core.Runner;
import dev.edgesam.harness.core.Tensor;
import java.io.File;
import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;
import java.util.List;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.Module;

/** ExecuTorch's own Java API. A program brings its delegate along, chosen when it was exported. */
final class ExecuTorchRunner implements Runner {
  private static final String METHOD = "forward";

  private Module encoder;
  private Module decoder;
  private Integer threads;

  @Override
  public void open(Job job, File encoderFile, File decoderFile, File cache) throws Fault {
    threads = job.threads;
    encoder = load(encoderFile);
    decoder = load(decoderFile);
  }

  private Module load(File file) throws Fault {
    try {
      Module module = Module.load(file.getPath(), Module.LOAD_MODE_MMAP, threads == null ? 0 : threads);
      // Returns a code in some releases and throws in others, which are two methods for the linker.
      Object code = Module.class.getMethod("loadMethod", String.class).invoke(module, METHOD);
      if (code instanceof Integer && (Integer) code != 0) {
        throw new Fault("load-failed", file.getName() + ": ExecuTorch's error " + code);
      }
      return module;
    } catch (InvocationTargetException e) {
      throw Fault.of("load-failed", e.getCause());
    } catch (ReflectiveOperationException e) {
      throw Fault.of("load-failed", e);
    } catch (RuntimeException e) {
      throw Fault.of("load-failed", e);
    } catch (LinkageError e) {
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

  private static void run(Module module, Tensor[] inputs, Tensor[] outputs) throws Fault {
    try {
      EValue[] values = new EValue[inputs.length];
      for (int i = 0; i < inputs.length; i++) {
        values[i] = EValue.from(wrapped(inputs[i]));
      }
      EValue[] answers = module.forward(values);
      if (answers.length != outputs.length) {
        throw new Fault("run-failed", answers.length + " outputs instead of " + outputs.length);
      }
      for (int i = 0; i < outputs.length; i++) {
        float[] numbers = answers[i].toTensor().getDataAsFloatArray();
        if (numbers.length != outputs[i].spec.elements()) {
          throw new Fault("run-failed", outputs[i].spec.name + " has " + numbers.length + " numbers");
        }
        outputs[i].data.asFloatBuffer().put(numbers);
      }
    } catch (RuntimeException e) {
      throw Fault.of("run-failed", e);
    }
  }

  /** The tensor's own buffer, without a copy. */
  private static org.pytorch.executorch.Tensor wrapped(Tensor tensor) {
    long[] shape = new long[tensor.spec.shape.length];
    for (int i = 0; i < shape.length; i++) {
      shape[i] = tensor.spec.shape[i];
    }
    return tensor.spec.dtype.equals("uint8")
        ? org.pytorch.executorch.Tensor.fromBlobUnsigned(tensor.data, shape)
        : org.pytorch.executorch.Tensor.fromBlob(tensor.data.asFloatBuffer(), shape);
  }

  @Override
  public String applied() {
    boolean whole = backends(encoder).contains("XnnpackBackend") && backends(decoder).contains("XnnpackBackend");
    boolean none = backends(encoder).isEmpty() && backends(decoder).isEmpty();
    return whole ? "xnnpack" : none ? "cpu" : null;
  }

  private static List<String> backends(Module module) {
    return Arrays.asList(module.getMethodMetadata(METHOD).getBackends());
  }

  @Override
  public Integer threads() {
    return threads;
  }

  @Override
  public String note() {
    return "delegates: encoder " + backends(encoder) + ", decoder " + backends(decoder);
  }

  @Override
  public void close() {
    if (encoder != null) {
      encoder.destroy();
      encoder = null;
    }
    if (decoder != null) {
      decoder.destroy();
      decoder = null;
    }
  }
}
