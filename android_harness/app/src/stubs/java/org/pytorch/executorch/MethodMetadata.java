package org.pytorch.executorch;

public class MethodMetadata {
  public native String[] getBackends();
}
