package dev.edgesam.harness.core;

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** No runtime: its masks are the same for every picture and prompt, and its faults are made to order. */
final class MadeUpRunner implements Runner, Runtimes {
  static final String FORMAT = "made-up";
  static final int SIZE = 16;

  /** The encoder's last input, and the decoder's last prompts. */
  Tensor image;
  final List<Float> labels = new ArrayList<Float>();

  /** Logits of the four masks; the best one is {@code best}. */
  float[] logits = {-1, -1, 1, -1};
  int best = 2;

  String failsIn = "";
  boolean keepsOnDisk;
  int open;

  @Override
  public void open(Job job, File encoder, File decoder, File cache) throws Fault {
    failIf("load", "load-failed");
    open++;
    if (keepsOnDisk) {
      new File(cache, "kept").mkdir();
    }
  }

  @Override
  public void encode(Tensor[] inputs, Tensor[] outputs) throws Fault {
    failIf("encode", "run-failed");
    image = inputs[0];
  }

  @Override
  public void decode(Tensor[] inputs, Tensor[] outputs) throws Fault {
    failIf("decode", "run-failed");
    if (failsIn.equals("fault")) {
      throw new IllegalStateException("out of order");
    }
    labels.clear();
    for (int i = 0; i < inputs[2].spec.elements(); i++) {
      labels.add(inputs[2].get(i));
    }
    int plane = outputs[1].spec.elements();
    for (int i = 0; i < 4 * plane; i++) {
      outputs[0].data.putFloat(4 * i, logits[i / plane]);
    }
    for (int i = 0; i < plane; i++) {
      outputs[1].data.putFloat(4 * i, logits[best]);
    }
  }

  private void failIf(String step, String code) throws Fault {
    if (failsIn.equals(step)) {
      throw new Fault(code, "made\nto order");
    }
  }

  @Override
  public String applied() {
    return "cpu";
  }

  @Override
  public Integer threads() {
    return null;
  }

  @Override
  public String note() {
    return "made up";
  }

  @Override
  public void close() {}

  @Override
  public List<Info> all() {
    List<String> formats = Collections.singletonList(FORMAT);
    return Collections.singletonList(new Info(FORMAT, "0", formats, Collections.singletonList("cpu")));
  }

  @Override
  public Runner runner(String format, String runtime, String delegate) throws Fault {
    if (Info.choose(all(), format, runtime, delegate) == null) {
      throw new Fault("no-runtime", "nothing here executes " + format);
    }
    return this;
  }

  /** A job's line; every {@code a -> b} of the changes replaces a text in it. */
  static String line(int size, String dtype, String layout, String... changes) {
    int low = size / 4;
    String image = layout.equals("NHWC") ? "1," + size + "," + size + ",3" : "1,3," + size + "," + size;
    String line =
        "{'protocol':'edgesam.harness/1','type':'job','job':'job-1','label':'a','format':'made-up','runtime':null,"
            + "'delegate':'cpu','threads':null,'encoder':{'path':'models/encoder','sha256':'ENCODER','inputs':["
            + tensor("image", image, dtype, layout)
            + "],'outputs':[" + tensor("image_embeddings", "1,4", "float32", "X")
            + "]},'decoder':{'path':'models/decoder','sha256':'DECODER','inputs':["
            + tensor("image_embeddings", "1,4", "float32", "X") + "," + tensor("point_coords", "1,3,2", "float32", "BNX")
            + "," + tensor("point_labels", "1,3", "float32", "BN") + "],'outputs':["
            + tensor("masks", "1,4," + low + "," + low, "float32", "BCHW") + ","
            + tensor("best_mask", "1,1," + low + "," + low, "float32", "BCHW")
            + "]},'picture':{'size':" + size + ",'pad_rgb':[123.675,116.28,103.53]},"
            + "'prompt':{'slots':3,'prompts_per_call':1,'mask_input':false},"
            + "'mask':{'low_resolution':" + low + ",'threshold':0.0,'score':'iou','point_masks':3},"
            + "'frame':{'image':'inputs/picture','points':[[3.0,4.5],[1,2]],'labels':[1,0]},"
            + "'golden':[{'image':'inputs/picture','points':[[3,4]],'labels':[1],'mask':'inputs/mask','best':2}],"
            + "'least_iou':0.9,'warm_up':{'rounds':6,'seconds':60,'window':2,'tolerance':0.5},"
            + "'measure':{'seconds':0,'rounds':4},'state_every':3600,'thermal_gate':null,'seed':7}";
    String sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; // of no bytes
    line = line.replace("ENCODER", sha256).replace("DECODER", sha256);
    for (String change : changes) {
      String[] parts = change.split(" -> ", -1);
      if (!line.contains(parts[0])) {
        throw new IllegalArgumentException("nothing to change: " + parts[0]);
      }
      line = line.replace(parts[0], parts[1]);
    }
    return line.replace('\'', '"');
  }

  static Job job(int size, String dtype, String layout, String... changes) throws Fault {
    return Job.parse(Json.object(line(size, dtype, layout, changes).getBytes(StandardCharsets.UTF_8)));
  }

  private static String tensor(String name, String shape, String dtype, String layout) {
    return "{'name':'" + name + "','shape':[" + shape + "],'dtype':'" + dtype + "','layout':'" + layout
        + "','meaning':'m'}";
  }
}
