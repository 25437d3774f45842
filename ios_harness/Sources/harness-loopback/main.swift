import EdgeSAMKit
import Foundation
import HarnessCore
import HarnessORT

// The harness as a device on this machine: `harness-loopback --folder FOLDER [--port PORT]`. It prints one line of JSON
// with the port that it listens on, then serves until its standard input or its process ends.

/// Ends the process with one line that says what is wrong and one that says what to do.
func stop(_ message: String, hint: String) -> Never {
  FileHandle.standardError.write(Data("error: \(message)\n\(hint)\n".utf8))
  exit(2)
}

var options = ["--port": "0"]
let words = Array(CommandLine.arguments.dropFirst())
for at in stride(from: 0, to: words.count, by: 2) {
  guard ["--folder", "--port"].contains(words[at]), at + 1 < words.count else {
    stop("cannot read the option \(words[at])", hint: "harness-loopback --folder FOLDER [--port PORT]")
  }
  options[words[at]] = words[at + 1]
}
guard let folder = options["--folder"], let port = options["--port"].flatMap(UInt16.init) else {
  stop("a folder is missing, or the port is none", hint: "harness-loopback --folder FOLDER [--port PORT]")
}
guard let library = ProcessInfo.processInfo.environment["EDGESAM_ORT_LIBRARY"] else {
  stop("no ONNX Runtime", hint: "set EDGESAM_ORT_LIBRARY to its shared library")
}

do {
  let server = try Server(
    folder: URL(fileURLWithPath: folder), runtimes: OnnxRuntimes(library: library),
    probe: SystemProbe(name: "edgesam-mobile Swift harness", version: "0.1.0"), port: port, observer: nil)
  // Whoever started it holds the other end: it ends with that process, however that one ends.
  Thread.detachNewThread {
    while !FileHandle.standardInput.availableData.isEmpty {}
    exit(0)
  }
  FileHandle.standardOutput.write(Data("{\"port\": \(server.port)}\n".utf8))
  try server.run()
} catch let error as SegmentationError {
  stop(error.message, hint: error.hint)
} catch let fault as Fault {
  stop(fault.message, hint: fault.hint ?? "choose another folder or port")
} catch {
  stop("\(error)", hint: "look at the folder, the port and EDGESAM_ORT_LIBRARY")
}
