package dev.edgesam.harness.core;

import java.io.DataInputStream;
import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** The head of a binary PPM or PBM and the bytes behind it. */
final class Netpbm {
  private static final int LONGEST_HEAD = 1024;
  private static final long LONGEST_FILE = 3L * Picture.MOST_PIXELS + LONGEST_HEAD;

  final int width;
  final int height;
  private final byte[] file;
  private int at = 2;

  static Netpbm open(File file, String magic, int maximum) throws Fault, IOException {
    if (file.length() > LONGEST_FILE) {
      throw new Fault("too-large", file.getName() + " has " + file.length() + " bytes");
    }
    byte[] content = new byte[(int) file.length()];
    DataInputStream in = new DataInputStream(new FileInputStream(file));
    try {
      in.readFully(content);
    } catch (EOFException e) {
      throw new Fault("bad-line", file.getName() + " changed while it was read");
    } finally {
      in.close();
    }
    return new Netpbm(content, magic, maximum);
  }

  private Netpbm(byte[] file, String magic, int maximum) throws Fault {
    this.file = file;
    if (file.length < 2 || !new String(file, 0, 2, StandardCharsets.US_ASCII).equals(magic)) {
      throw new Fault("bad-line", "no binary " + (maximum == 1 ? "PBM" : "PPM") + " (" + magic + ")");
    }
    width = number();
    height = number();
    if (maximum > 1 && number() != maximum) {
      throw new Fault("bad-line", "a picture's maximum is not " + maximum);
    }
    at++; // one blank stands between the head and the pixels
    if (width < 1 || height < 1) {
      throw new Fault("bad-line", "a picture of " + width + " x " + height + " pixels");
    }
    if ((long) width * height > Picture.MOST_PIXELS) {
      throw new Fault("too-large", "a picture of " + width + " x " + height + " pixels");
    }
  }

  byte[] pixels(long bytes) throws Fault {
    if (file.length - at != bytes) {
      throw new Fault("bad-line", "a picture of " + width + " x " + height + " has " + (file.length - at) + " bytes");
    }
    return java.util.Arrays.copyOfRange(file, at, file.length);
  }

  private int number() throws Fault {
    while (at < file.length && (blank(file[at]) || file[at] == '#')) {
      boolean comment = file[at] == '#';
      at++;
      while (comment && at < file.length && file[at] != '\n') {
        at++;
      }
    }
    int begin = at;
    long number = 0;
    while (at < file.length && file[at] >= '0' && file[at] <= '9' && at - begin < 9) {
      number = 10 * number + file[at++] - '0';
    }
    if (at == begin || at >= file.length || !blank(file[at])) {
      throw new Fault("bad-line", "the head of a picture is damaged");
    }
    return (int) number;
  }

  private static boolean blank(byte c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
  }
}
