package dev.edgesam.harness.core;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.List;
import java.util.Map;
import org.junit.Test;

/** Against what the Python side computed: tools/make_fixtures.py. */
public final class FixturesTest {
  private static final File FOLDER =
      new File(FixturesTest.class.getResource("/fixtures/cases.json").getFile()).getParentFile();
  /** Much higher than wide: see {@link Resampling}. */
  private static final int TALL = 3;

  @Test
  public void picturesAreResizedAndPaddedToTheSameBytes() throws Exception {
    for (int number = 0; number < cases().size(); number++) {
      MadeUpRunner runner = new MadeUpRunner();
      int size = size(number);
      Pipeline pipeline = new Pipeline(MadeUpRunner.job(size, "uint8", "NHWC"), runner);
      pipeline.use(Picture.read(new File(FOLDER, number + ".ppm")));
      pipeline.pre();
      pipeline.encode();
      Picture expected = Picture.read(new File(FOLDER, number + ".frame.ppm"));
      byte[] found = bytes(runner.image);
      for (int i = 0; i < found.length; i++) {
        assertEquals("case " + number, expected.rgb[i] & 0xff, found[i] & 0xff, number == TALL ? 1 : 0);
      }
    }
  }

  @Test
  public void floatsByChannelAreTheSameButForTheExactPadding() throws Exception {
    for (int number = 0; number < cases().size(); number++) {
      MadeUpRunner runner = new MadeUpRunner();
      int size = size(number);
      Pipeline pipeline = new Pipeline(MadeUpRunner.job(size, "float32", "NCHW"), runner);
      pipeline.use(Picture.read(new File(FOLDER, number + ".ppm")));
      pipeline.pre();
      pipeline.encode();
      Picture expected = Picture.read(new File(FOLDER, number + ".frame.ppm"));
      for (int i = 0; i < size * size; i++) {
        for (int channel = 0; channel < 3; channel++) {
          float found = runner.image.get(channel * size * size + i);
          assertEquals("case " + number, expected.rgb[3 * i + channel] & 0xff, Math.rint(found), number == TALL ? 1 : 0);
        }
      }
    }
  }

  @Test
  public void masksAreTheSameToThePixel() throws Exception {
    for (int number = 0; number < cases().size(); number++) {
      Mask expected = Mask.read(new File(FOLDER, number + ".pbm"));
      int size = size(number);
      Geometry geometry = new Geometry(expected.width, expected.height, size);
      ByteBuffer raw = ByteBuffer.wrap(Files.readAllBytes(new File(FOLDER, number + ".logits").toPath()));
      float[] logits = new float[size / 4 * (size / 4)];
      raw.order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(logits);
      Mask mask = new Mask(expected.width, expected.height);
      new Upscaling(geometry, size / 4, size).threshold(logits, 0, mask);
      assertArrayEquals("case " + number, expected.pixels, mask.pixels);
      assertArrayEquals(Files.readAllBytes(new File(FOLDER, number + ".pbm").toPath()), mask.pbm());
    }
  }

  @Test
  public void pointsComeToTheSamePlace() throws Exception {
    for (int number = 0; number < cases().size(); number++) {
      Picture picture = Picture.read(new File(FOLDER, number + ".ppm"));
      Geometry geometry = new Geometry(picture.width, picture.height, size(number));
      List<?> point = (List<?>) one(number).get("point");
      List<?> framed = (List<?>) one(number).get("framed");
      assertEquals(((Number) framed.get(0)).floatValue(), geometry.frameX(((Number) point.get(0)).doubleValue()), 0);
      assertEquals(((Number) framed.get(1)).floatValue(), geometry.frameY(((Number) point.get(1)).doubleValue()), 0);
    }
  }

  private static List<?> cases() throws Exception {
    return (List<?>) Json.object(Files.readAllBytes(new File(FOLDER, "cases.json").toPath())).get("cases");
  }

  private static Map<?, ?> one(int number) throws Exception {
    return (Map<?, ?>) cases().get(number);
  }

  private static int size(int number) throws Exception {
    return ((Long) one(number).get("size")).intValue();
  }

  private static byte[] bytes(Tensor tensor) {
    byte[] bytes = new byte[tensor.spec.bytes()];
    ByteBuffer copy = tensor.data.duplicate();
    copy.position(0);
    copy.get(bytes);
    return bytes;
  }
}
