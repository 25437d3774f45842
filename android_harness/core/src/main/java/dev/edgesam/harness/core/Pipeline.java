package dev.edgesam.harness.core;

import java.io.File;

/**
 * One loaded case, cut into the four steps that are timed. Every buffer is made before the first frame, so that a
 * frame allocates nothing of its own.
 */
final class Pipeline {
  private final Job job;
  private final Runner runner;
  private final Tensor[] encoderInputs;
  private final Tensor[] encoderOutputs;
  private final Tensor[] decoderInputs;
  private final Tensor[] decoderOutputs;
  private final Tensor image;
  private final Tensor masks;
  private final Tensor best;
  private final float[] logits;
  private final float[] floats;
  private final byte[] bytes;

  private Picture picture;
  private Geometry geometry;
  private Resampling resampling;
  private Upscaling upscaling;
  private Mask mask;

  /**
   * @throws Fault {@code bad-line}: the job's tensors do not fit each other.
   */
  Pipeline(Job job, Runner runner) throws Fault {
    this.job = job;
    this.runner = runner;
    encoderInputs = Tensor.of(job.encoder.inputs);
    encoderOutputs = Tensor.of(job.encoder.outputs);
    decoderInputs = Tensor.of(job.decoder.inputs);
    decoderOutputs = Tensor.of(job.decoder.outputs);
    image = sized(Tensor.named(encoderInputs, "image"), 3 * job.size * job.size);
    if (image.spec.dtype.equals("float16")) {
      throw new Fault("bad-line", "a picture of float16");
    }
    floats = image.spec.dtype.equals("float32") ? new float[image.spec.elements()] : null;
    bytes = floats == null ? new byte[image.spec.elements()] : null;
    int side = job.lowResolution;
    masks = sized(Tensor.named(decoderOutputs, "masks"), 4 * side * side * job.promptsPerCall);
    best = sized(Tensor.named(decoderOutputs, "best_mask"), side * side * job.promptsPerCall);
    logits = new float[side * side];
    Tensor from = Tensor.named(encoderOutputs, "image_embeddings");
    Tensor to = Tensor.named(decoderInputs, "image_embeddings");
    if (from.spec.bytes() != to.spec.bytes() || !from.spec.dtype.equals(to.spec.dtype)) {
      throw new Fault("bad-line", "the decoder's image_embeddings are not the encoder's");
    }
    // The decoder reads what the encoder wrote, without a copy.
    for (int i = 0; i < decoderInputs.length; i++) {
      decoderInputs[i] = decoderInputs[i] == to ? from : decoderInputs[i];
    }
  }

  void load(File encoder, File decoder, File cache) throws Fault {
    runner.open(job, encoder, decoder, cache);
  }

  /** Sets the picture of the next frames. */
  void use(Picture picture) {
    this.picture = picture;
    geometry = new Geometry(picture.width, picture.height, job.size);
    resampling = new Resampling(picture.width, picture.height, geometry.resizedWidth, geometry.resizedHeight);
    upscaling = new Upscaling(geometry, job.lowResolution, job.size);
    mask = new Mask(picture.width, picture.height);
  }

  /** Resizes and pads: fills the encoder's input. */
  void pre() {
    byte[] rgb = resampling.apply(picture.rgb);
    boolean channelsLast = image.spec.layout.equals("NHWC");
    int step = channelsLast ? 3 : 1;
    int plane = channelsLast ? 1 : job.size * job.size;
    for (int y = 0; y < job.size; y++) {
      int inside = y < geometry.resizedHeight ? geometry.resizedWidth : 0;
      int from = 3 * geometry.resizedWidth * y;
      for (int channel = 0; channel < 3; channel++) {
        int at = channel * plane + y * job.size * step;
        if (floats != null) {
          for (int x = 0; x < inside; x++) {
            floats[at + x * step] = rgb[from + 3 * x + channel] & 0xff;
          }
          for (int x = inside; x < job.size; x++) {
            floats[at + x * step] = (float) job.padRgb[channel];
          }
        } else {
          for (int x = 0; x < inside; x++) {
            bytes[at + x * step] = rgb[from + 3 * x + channel];
          }
          for (int x = inside; x < job.size; x++) {
            bytes[at + x * step] = (byte) Math.rint(job.padRgb[channel]);
          }
        }
      }
    }
    // In one go: single numbers into a direct buffer are slow on phones.
    image.data.rewind();
    if (floats != null) {
      image.data.asFloatBuffer().put(floats);
    } else {
      image.data.put(bytes).rewind();
    }
  }

  void encode() throws Fault {
    runner.encode(encoderInputs, encoderOutputs);
  }

  void decode(Job.Prompted prompt) throws Fault {
    Prompt.fill(job, prompt, geometry, decoderInputs);
    runner.decode(decoderInputs, decoderOutputs);
  }

  /** Enlarges the best mask's logits and thresholds them; the mask is valid until the next frame. */
  Mask post() {
    best.read(logits);
    upscaling.threshold(logits, job.threshold, mask);
    return mask;
  }

  /** Which of the four masks the graph chose: the one whose logits are nearest to the best mask's. */
  int best() {
    int nearest = 0;
    double least = Double.POSITIVE_INFINITY;
    for (int k = 0; k < 4; k++) {
      double distance = 0;
      for (int i = 0; i < logits.length; i++) {
        distance = Math.max(distance, Math.abs(masks.get(k * logits.length + i) - best.get(i)));
      }
      if (distance < least) {
        least = distance;
        nearest = k;
      }
    }
    return nearest;
  }

  private static Tensor sized(Tensor tensor, int elements) throws Fault {
    if (tensor.spec.elements() != elements) {
      throw new Fault("bad-line", tensor.spec.name + " has " + tensor.spec.elements() + " numbers, not " + elements);
    }
    return tensor;
  }
}
