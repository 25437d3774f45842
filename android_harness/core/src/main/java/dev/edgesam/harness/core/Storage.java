package dev.edgesam.harness.core;

import java.io.Closeable;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/**
 * The harness's own folder: {@code models/}, {@code inputs/}, {@code jobs/} with requests and kept streams, {@code
 * cache/} of runtimes. Nothing outside it is opened.
 */
public final class Storage {
  private static final long LARGEST_FILE = 2L << 30;

  private final File root;

  public Storage(File root) throws IOException {
    this.root = root.getCanonicalFile();
  }

  /**
   * A file of a job, by its path within the folder.
   *
   * @throws Fault {@code bad-path} where it leads out of the folder, {@code not-found}, {@code too-large}.
   */
  File file(String path) throws Fault, IOException {
    File file = new File(root, path).getCanonicalFile();
    // Names were checked before; a link within the folder may still lead out of it.
    if (!Fields.PATH.matcher(path).matches() || !file.getPath().startsWith(root.getPath() + File.separator)) {
      throw new Fault("bad-path", "outside the harness's folder: " + path);
    }
    if (!file.isFile()) {
      throw new Fault("not-found", "no file " + path, "push it first");
    }
    if (file.length() > LARGEST_FILE) {
      throw new Fault("too-large", path + " has more than 2 GiB");
    }
    return file;
  }

  /** A model's file. One that is not what the job names is removed and {@code hash-mismatch}: it is to come anew. */
  File model(Job.Graph graph) throws Fault, IOException {
    File file = file(graph.path);
    String found = sha256(file);
    if (!found.equals(graph.sha256)) {
      file.delete();
      throw new Fault("hash-mismatch", graph.path + " has sha256 " + found, "push it again");
    }
    return file;
  }

  /** The line of a request's file. */
  byte[] request(String path) throws Fault, IOException {
    File file = file(path);
    if (file.length() > Json.LONGEST_LINE) {
      throw new Fault("too-large", "a job of " + file.length() + " bytes; the limit is 1 MiB");
    }
    byte[] line = new byte[(int) file.length()];
    RandomAccessFile in = new RandomAccessFile(file, "r");
    try {
      in.readFully(line);
    } finally {
      in.close();
    }
    return line;
  }

  /** An empty folder for what a runtime keeps on disk. */
  File emptyCache() throws IOException {
    File cache = new File(root, "cache");
    delete(cache);
    if (!cache.mkdirs()) {
      throw new IOException("cannot make " + cache);
    }
    return cache;
  }

  /** Whether somebody wants a job to end early: a file {@code jobs/JOB.cancel} says so. */
  boolean cancelled(String job) {
    return new File(root, "jobs/" + job + ".cancel").exists();
  }

  /**
   * Opens the kept stream of a job, {@code jobs/JOB.jsonl}.
   *
   * @throws Fault {@code bad-line}: the job was run before.
   */
  Kept keep(String job) throws Fault, IOException {
    File folder = new File(root, "jobs");
    folder.mkdirs();
    File file = new File(folder, job + ".jsonl");
    if (!file.createNewFile()) {
      throw new Fault("bad-line", "job.job: " + job + " was run before");
    }
    return new Kept(new FileOutputStream(file));
  }

  /**
   * Takes the folder for one job at a time, over all processes; the file goes with its process.
   *
   * @throws Fault {@code busy}.
   */
  Closeable lock() throws Fault, IOException {
    final RandomAccessFile file = new RandomAccessFile(new File(root, "harness.lock"), "rw");
    FileLock lock;
    try {
      lock = file.getChannel().tryLock();
    } catch (OverlappingFileLockException e) {
      lock = null;
    }
    if (lock == null) {
      file.close();
      throw new Fault("busy", "another job is running");
    }
    return file;
  }

  private static void delete(File file) {
    File[] inside = file.listFiles();
    if (inside != null) {
      for (File one : inside) {
        delete(one);
      }
    }
    file.delete();
  }

  private static String sha256(File file) throws IOException {
    MessageDigest digest;
    try {
      digest = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
    InputStream in = new FileInputStream(file);
    try {
      byte[] piece = new byte[1 << 16];
      for (int read = in.read(piece); read >= 0; read = in.read(piece)) {
        digest.update(piece, 0, read);
      }
    } finally {
      in.close();
    }
    StringBuilder hex = new StringBuilder();
    for (byte b : digest.digest()) {
      hex.append(Character.forDigit((b >> 4) & 15, 16)).append(Character.forDigit(b & 15, 16));
    }
    return hex.toString();
  }

  /** A kept stream: every line is with the system before the next event arises. */
  static final class Kept implements Events.Sink, Closeable {
    private final FileOutputStream out;

    Kept(FileOutputStream out) {
      this.out = out;
    }

    @Override
    public void line(String json) throws IOException {
      out.write((json + "\n").getBytes(StandardCharsets.UTF_8));
    }

    @Override
    public void close() throws IOException {
      out.close();
    }
  }
}
