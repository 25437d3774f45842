package dev.edgesam.harness.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** The protocol's request {@code job}, checked: one launch of one case. */
public final class Job {
  public static final String PROTOCOL = "edgesam.harness/1";
  static final Pattern ID = Pattern.compile("[a-z0-9-]{1,64}");
  private static final Pattern SHA256 = Pattern.compile("[0-9a-f]{64}");
  private static final double LONGEST = 24 * 3600;
  private static final int MOST_GOLDEN = 64;
  private static final int LARGEST_SIDE = 1 << 14;
  private static final double FAR = 1e9;

  public final String id;
  public final String label;
  public final String format;
  public final String runtime;
  public final String delegate;
  public final Integer threads;
  public final Graph encoder;
  public final Graph decoder;
  public final int size;
  public final double[] padRgb;
  public final int slots;
  public final int promptsPerCall;
  public final boolean maskInput;
  public final int lowResolution;
  public final float threshold;
  public final Prompted frame;
  public final List<Golden> golden;
  public final double leastIou;
  public final WarmUp.Limits warmUp;
  public final double seconds;
  public final long rounds;
  public final double stateEvery;
  public final Gate gate;

  /**
   * @throws Fault {@code unknown-type}, {@code unknown-version}, {@code bad-line} with the field's name, {@code
   *     bad-path}, {@code too-large}.
   */
  public static Job parse(Map<String, Object> message) throws Fault {
    Fields fields = new Fields(message, "job");
    if (fields.has("protocol") && !fields.text("protocol").equals(PROTOCOL)) {
      throw new Fault("unknown-version", fields.text("protocol") + " instead of " + PROTOCOL);
    }
    if (!fields.text("type").equals("job")) {
      throw new Fault("unknown-type", "a job was to come, not " + fields.text("type"));
    }
    return new Job(fields);
  }

  /** The id of what may be no good job otherwise, so that its error can say whose it is; null without one. */
  static String idOf(Map<String, Object> message) {
    Object id = message.get("job");
    return id instanceof String && ID.matcher((String) id).matches() ? (String) id : null;
  }

  private Job(Fields fields) throws Fault {
    id = fields.matching("job", ID);
    label = fields.text("label");
    format = fields.text("format");
    runtime = fields.text("runtime", null);
    delegate = fields.text("delegate", null);
    threads = fields.has("threads") ? (int) fields.whole("threads", 1, 1024) : null;
    encoder = new Graph(fields.object("encoder"));
    decoder = new Graph(fields.object("decoder"));
    Fields picture = fields.object("picture");
    size = (int) picture.whole("size", 1, LARGEST_SIDE);
    padRgb = picture.numbers("pad_rgb", 3, 3, 0, 255);
    Fields prompt = fields.object("prompt");
    slots = (int) prompt.whole("slots", 1, 1024);
    promptsPerCall = (int) prompt.whole("prompts_per_call", 1, 1024);
    maskInput = prompt.flag("mask_input");
    Fields mask = fields.object("mask");
    lowResolution = (int) mask.whole("low_resolution", 1, size);
    threshold = (float) mask.number("threshold", -FAR, FAR);
    frame = new Prompted(fields.object("frame"));
    golden = new ArrayList<Golden>();
    for (Fields one : fields.objects("golden", 0, Integer.MAX_VALUE)) {
      golden.add(new Golden(one));
    }
    if (golden.size() > MOST_GOLDEN) {
      throw new Fault("too-large", "job.golden: " + golden.size() + " prompts; the limit is " + MOST_GOLDEN);
    }
    leastIou = fields.number("least_iou", 0, 1);
    warmUp = new WarmUp.Limits(fields.object("warm_up"));
    Fields measure = fields.object("measure");
    seconds = measure.number("seconds", 0, LONGEST);
    rounds = measure.whole("rounds", 1, Long.MAX_VALUE);
    stateEvery = fields.number("state_every", Double.MIN_VALUE, LONGEST);
    gate = fields.has("thermal_gate") ? new Gate(fields.object("thermal_gate")) : null;
    fields.whole("seed", 0, Long.MAX_VALUE);
  }

  /** A graph's file, its hash by the manifest, and its inputs and outputs in the file's order. */
  public static final class Graph {
    public final String path;
    public final String sha256;
    public final TensorSpec[] inputs;
    public final TensorSpec[] outputs;

    Graph(Fields fields) throws Fault {
      path = fields.path("path");
      sha256 = fields.matching("sha256", SHA256);
      inputs = tensors(fields, "inputs");
      outputs = tensors(fields, "outputs");
    }

    private static TensorSpec[] tensors(Fields fields, String name) throws Fault {
      List<TensorSpec> specs = new ArrayList<TensorSpec>();
      for (Fields one : fields.objects(name, 1, 32)) {
        specs.add(TensorSpec.parse(one));
      }
      return specs.toArray(new TensorSpec[0]);
    }
  }

  /** A picture and a prompt on it: points flattened, (x, y) in pixels of the picture; -1 is an empty slot. */
  public static class Prompted {
    public final String image;
    public final double[] points;
    public final int[] labels;

    Prompted(Fields fields) throws Fault {
      image = fields.path("image");
      points = fields.pairs("points", 1, 1024, -FAR, FAR);
      double[] kinds = fields.numbers("labels", points.length / 2, points.length / 2, -1, 3);
      labels = new int[kinds.length];
      for (int i = 0; i < labels.length; i++) {
        labels[i] = (int) kinds[i];
        if (labels[i] != kinds[i]) {
          throw fields.wrong("labels", "whole numbers from -1 to 3");
        }
      }
    }
  }

  /** What PyTorch answered to a prompt: the mask's file, and which of the four it was. */
  public static final class Golden extends Prompted {
    public final String mask;
    public final int best;

    Golden(Fields fields) throws Fault {
      super(fields);
      mask = fields.path("mask");
      best = (int) fields.whole("best", 0, 3);
    }
  }

  /** The hottest that may start, and how long to wait for it, in seconds. */
  public static final class Gate {
    static final List<String> HEAT = Arrays.asList("nominal", "fair", "serious", "critical");

    final String thermal;
    final double batteryCelsius;
    final double wait;

    Gate(Fields fields) throws Fault {
      thermal = fields.text("thermal", null);
      if (thermal != null && !HEAT.contains(thermal)) {
        throw fields.wrong("thermal", "nominal, fair, serious or critical");
      }
      batteryCelsius = fields.has("battery_c") ? fields.number("battery_c", -FAR, FAR) : FAR;
      wait = fields.number("wait", 0, LONGEST);
    }

    /** Why a state keeps the gate shut; null where it is open. What a device does not tell opens it. */
    String shutBy(Map<String, Object> state) {
      Object heat = state.get("thermal");
      if (thermal != null && heat != null && HEAT.indexOf(heat) > HEAT.indexOf(thermal)) {
        return "thermal state " + heat;
      }
      Object battery = state.get("battery");
      Object celsius = battery instanceof Map ? ((Map<?, ?>) battery).get("celsius") : null;
      if (celsius instanceof Number && ((Number) celsius).doubleValue() > batteryCelsius) {
        return "a battery of " + celsius + " degrees";
      }
      return null;
    }
  }
}
