package dev.edgesam.harness.core;

/** Fills the decoder's prompt inputs. An empty slot has the label -1; its place does not matter. */
final class Prompt {
  private Prompt() {}

  /**
   * Fills {@code point_coords} (prompts x slots x 2) and {@code point_labels} (prompts x slots); the prompt is the
   * first of the call. Where the graph takes mask prompts, its tensors keep the zeros that they are made with.
   *
   * @throws Fault {@code bad-line}: more points than slots, or none that is no empty slot.
   */
  static void fill(Job job, Job.Prompted prompt, Geometry geometry, Tensor[] inputs) throws Fault {
    if (prompt.labels.length > job.slots) {
      throw new Fault("bad-line", prompt.labels.length + " points for " + job.slots + " slots");
    }
    Tensor coords = sized(Tensor.named(inputs, "point_coords"), 2 * job.slots * job.promptsPerCall);
    Tensor labels = sized(Tensor.named(inputs, "point_labels"), job.slots * job.promptsPerCall);
    for (int i = 0; i < job.slots * job.promptsPerCall; i++) {
      coords.data.putFloat(8 * i, 0);
      coords.data.putFloat(8 * i + 4, 0);
      labels.data.putFloat(4 * i, -1);
    }
    boolean any = false;
    for (int i = 0; i < prompt.labels.length; i++) {
      coords.data.putFloat(8 * i, geometry.frameX(prompt.points[2 * i]));
      coords.data.putFloat(8 * i + 4, geometry.frameY(prompt.points[2 * i + 1]));
      labels.data.putFloat(4 * i, prompt.labels[i]);
      any |= prompt.labels[i] >= 0;
    }
    if (!any) {
      throw new Fault("bad-line", "nothing is prompted");
    }
  }

  private static Tensor sized(Tensor tensor, int elements) throws Fault {
    if (tensor.spec.elements() != elements || !tensor.spec.dtype.equals("float32")) {
      throw new Fault("bad-line", tensor.spec.name + " has no " + elements + " numbers of float32");
    }
    return tensor;
  }
}
