/// Which parts of the device may run a model. Raw values are the harness protocol's delegates.
///
/// Pin the one that was fastest where it was measured (`edgesam-mobile bench`): `all` is not always.
public enum ComputeUnits: String, CaseIterable, Sendable {
  /// Whatever the system chooses.
  case all
  /// Neural engine and CPU. An app in the background keeps these, but not the GPU.
  case cpuAndNeuralEngine
  /// GPU and CPU.
  case cpuAndGPU
  /// CPU alone.
  case cpuOnly
}
