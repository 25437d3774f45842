package dev.edgesam.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public final class PartsTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void theKernelComputesTheSameEveryTime() {
    ReferenceKernel kernel = new ReferenceKernel();
    assertEquals(ReferenceKernel.CHECKSUM, kernel.run(), 0);
    assertEquals(ReferenceKernel.CHECKSUM, kernel.run(), 0);
  }

  @Test
  public void aWarmUpEndsWhenMediansOfTwoWindowsAgree() {
    WarmUp warmUp = new WarmUp(new WarmUp.Limits(100, 100, 3, 0.05), 0);
    for (long ms : new long[] {90, 60, 50, 51, 49}) {
      warmUp.took(ms);
      assertFalse(warmUp.over(1));
    }
    for (long ms : new long[] {500, 50, 50}) { // one disturbed frame of three is passed over
      warmUp.took(ms);
    }
    assertTrue(warmUp.stable());
    assertEquals(8, warmUp.rounds());
  }

  @Test
  public void aWarmUpEndsAtItsLimits() {
    WarmUp rounds = new WarmUp(new WarmUp.Limits(2, 100, 1, 0), 0);
    rounds.took(10);
    assertFalse(rounds.over(0));
    rounds.took(20);
    assertTrue(rounds.over(0));
    assertFalse(rounds.stable());
    assertTrue(new WarmUp(new WarmUp.Limits(9, 1, 1, 0), 5).over(1000000005L));
  }

  @Test
  public void iouIsOfPixels() {
    Mask one = mask(4, 0, 1, 1, 0);
    assertEquals(1.0 / 3, one.iou(mask(4, 0, 0, 1, 1)), 1e-12);
    assertEquals(1, one.iou(one), 0);
    assertEquals(1, mask(4, 0, 0, 0, 0).iou(mask(4, 0, 0, 0, 0)), 0);
    assertEquals(0, one.iou(mask(2, 0, 1, 1, 0)), 0);
  }

  @Test
  public void halfPrecisionIsRead() {
    assertEquals(1f, Tensor.fromHalf((short) 0x3c00), 0);
    assertEquals(-2f, Tensor.fromHalf((short) 0xc000), 0);
    assertEquals(65504f, Tensor.fromHalf((short) 0x7bff), 0);
    assertEquals(0x1p-24f, Tensor.fromHalf((short) 1), 0);
    assertEquals(0f, Tensor.fromHalf((short) 0), 0);
    assertTrue(Float.isInfinite(Tensor.fromHalf((short) 0x7c00)));
  }

  @Test
  public void emptySlotsAreLabelledMinusOne() throws Exception {
    Job job = MadeUpRunner.job(16, "float32", "NHWC");
    Tensor[] inputs = Tensor.of(job.decoder.inputs);
    Prompt.fill(job, job.frame, new Geometry(32, 8, 16), inputs);
    assertEquals(Arrays.asList(1f, 0f, -1f), numbers(inputs[2]));
    assertEquals(Arrays.asList(1.5f, 2.25f, 0.5f, 1f, 0f, 0f), numbers(inputs[1]));
  }

  @Test
  public void damagedPicturesAreRefused() throws Exception {
    String[] bad = {
      "", "P5 2 1 255\n123456", "P6 2 1 255\n12345", "P6 2 1 255\n1234567", "P6 2 1 65535\n123456", "P6 0 1 255\n",
      "P6 2", "P6 99999999 99999999 255\n", "P6 999999999999 1 255\n", "P6 -1 1 255\n", "P6 2 1 255"
    };
    for (String text : bad) {
      try {
        Picture.read(file(text));
        fail(text);
      } catch (Fault fault) {
        assertTrue(text, fault.code().equals("bad-line") || fault.code().equals("too-large"));
      }
    }
    Picture good = Picture.read(file("P6 # a remark\n2\t1\n255\n123456"));
    assertEquals("123456", new String(good.rgb, StandardCharsets.US_ASCII));
  }

  @Test
  public void aGateIsShutByHeatThatTheDeviceTells() throws Exception {
    Job job = MadeUpRunner.job(16, "uint8", "NHWC", "'thermal_gate':null -> 'thermal_gate':{'thermal':'fair','battery_c':35,'wait':9}");
    assertEquals(null, job.gate.shutBy(Collections.<String, Object>singletonMap("thermal", "fair")));
    assertEquals(null, job.gate.shutBy(Collections.<String, Object>singletonMap("thermal", null)));
    assertEquals("thermal state serious", job.gate.shutBy(Collections.<String, Object>singletonMap("thermal", "serious")));
    Map<String, Object> warm = Collections.<String, Object>singletonMap("celsius", 35.1);
    assertEquals("a battery of 35.1 degrees", job.gate.shutBy(Collections.<String, Object>singletonMap("battery", warm)));
  }

  @Test
  public void badJobsAreRefusedByFieldAndCode() {
    String[][] bad = {
      {"'job':'job-1' -> 'job':'Job 1'", "bad-line", "job.job"},
      {"'rounds':4 -> 'rounds':0", "bad-line", "job.measure.rounds"},
      {"'rounds':4 -> 'rounds':'4'", "bad-line", "job.measure.rounds"},
      {"'rounds':4 -> 'rounds':4.0", "bad-line", "job.measure.rounds"},
      {"'seconds':0 -> 'seconds':-1", "bad-line", "job.measure.seconds"},
      {"'labels':[1,0] -> 'labels':[1]", "bad-line", "job.frame.labels"},
      {"'labels':[1,0] -> 'labels':[1,4]", "bad-line", "job.frame.labels"},
      {"'points':[[3,4]] -> 'points':[[3]]", "bad-line", "job.golden.0.points"},
      {"'least_iou':0.9, -> ", "bad-line", "job.least_iou"},
      {"'path':'models/encoder' -> 'path':'../encoder'", "bad-path", "job.encoder.path"},
      {"'path':'models/encoder' -> 'path':'/encoder'", "bad-path", "job.encoder.path"},
      {"'inputs/mask' -> 'inputs/.hidden'", "bad-path", "job.golden.0.mask"},
      {"'shape':[1,3] -> 'shape':[1000,1000,1000]", "too-large", "point_labels"},
      {"'dtype':'uint8' -> 'dtype':'image'", "bad-line", "job.encoder.inputs.0.dtype"},
      {"harness/1 -> harness/2", "unknown-version", "harness/2"},
      {"'type':'job' -> 'type':'put'", "unknown-type", "put"},
      {"'thermal_gate':null -> 'thermal_gate':{'thermal':'mild','wait':1}", "bad-line", "job.thermal_gate.thermal"},
    };
    for (String[] one : bad) {
      try {
        MadeUpRunner.job(16, "uint8", "NHWC", one[0]);
        fail(one[0]);
      } catch (Fault fault) {
        assertEquals(one[0], one[1], fault.code());
        assertTrue(fault.getMessage(), fault.getMessage().contains(one[2]));
      }
    }
  }

  private File file(String text) throws Exception {
    File file = new File(folder.getRoot(), "picture");
    Files.write(file.toPath(), text.getBytes(StandardCharsets.US_ASCII));
    return file;
  }

  private static java.util.List<Float> numbers(Tensor tensor) {
    java.util.List<Float> numbers = new java.util.ArrayList<Float>();
    for (int i = 0; i < tensor.spec.elements(); i++) {
      numbers.add(tensor.get(i));
    }
    return numbers;
  }

  private static Mask mask(int width, int... pixels) {
    Mask mask = new Mask(width, pixels.length / width);
    for (int i = 0; i < pixels.length; i++) {
      mask.pixels[i] = (byte) pixels[i];
    }
    return mask;
  }
}
