package dev.edgesam.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public final class ProcFilesTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void aCoreThatTellsNoClockIsNull() throws IOException {
    clock("cpu0", "1804800\n");
    clock("cpu1", "<unsupported>\n");
    folder.newFolder("cpu2");
    clock("cpu4", "1\n"); // beyond a gap: there is no cpu3
    assertEquals(Arrays.asList(1804800L, null, null), ProcFiles.clocksKhz(folder.getRoot()));
  }

  @Test
  public void withoutAnyClockThereIsNoList() throws IOException {
    folder.newFolder("cpu0");
    assertNull(ProcFiles.clocksKhz(folder.getRoot()));
    assertNull(ProcFiles.clocksKhz(new File(folder.getRoot(), "nothing")));
  }

  @Test
  public void sizesAreInBytes() throws IOException {
    File status = write("status", "Name:\tjava\nVmHWM:\t     12 kB\nVmRSS:\tmany kB\nVmSwap:\n");
    assertEquals(Long.valueOf(12288), ProcFiles.bytes(status, "VmHWM:"));
    assertNull(ProcFiles.bytes(status, "VmRSS:"));
    assertNull(ProcFiles.bytes(status, "VmSwap:"));
    assertNull(ProcFiles.bytes(status, "VmPeak:"));
    assertNull(ProcFiles.bytes(new File(folder.getRoot(), "nothing"), "VmHWM:"));
  }

  private void clock(String cpu, String text) throws IOException {
    folder.newFolder(cpu, "cpufreq");
    write(cpu + "/cpufreq/scaling_cur_freq", text);
  }

  private File write(String path, String text) throws IOException {
    File file = new File(folder.getRoot(), path);
    Files.write(file.toPath(), text.getBytes(StandardCharsets.US_ASCII));
    return file;
  }
}
