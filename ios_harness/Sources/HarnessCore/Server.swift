import Foundation

/// The harness as a device: it listens on the loopback interface, where usbmux delivers what comes over the cable, and
/// serves one desktop at a time.
///
/// A job outlives the conversation that started it.
public final class Server: @unchecked Sendable {
  private var listener: Socket?  // of the thread that runs it
  private let storage: Storage
  private let harness: Harness
  private let idle: Double
  private let stopped = Flag()
  private let sessions = DispatchGroup()

  /// The port that it listens on.
  public let port: UInt16

  /// Begins to listen on 127.0.0.1.
  ///
  /// - Parameters:
  ///   - folder: the harness's own folder, made where it is not there.
  ///   - runtimes: what executes models.
  ///   - probe: what tells of the device.
  ///   - port: 0 for any that is free.
  ///   - observer: sees jobs' events; nil for nobody. It is not kept alive.
  ///   - idle: seconds after which a session outside a job that says nothing is ended.
  /// - Throws: `Fault` where the folder cannot be used or the port is taken.
  public init(
    folder: URL, runtimes: Runtimes, probe: Probe, port: UInt16, observer: JobObserver? = nil, idle: Double = 60
  ) throws {
    storage = try Storage(folder)
    harness = Harness(storage: storage, runtimes: runtimes, probe: probe, observer: observer)
    let listener = try Socket.listening(on: port)
    self.listener = listener
    self.port = listener.port
    self.idle = idle
  }

  /// Serves until `stop`, on the caller's thread; then its port is free again, for another server.
  ///
  /// - Throws: `Fault` where the system has taken the socket away, as from an app that was suspended: make a new server
  ///   then. A job that runs is cancelled first.
  public func run() throws {
    defer {
      stopped.set()
      harness.stop()
      sessions.wait()
      listener = nil
    }
    do {
      while !stopped.isSet {
        if let connection = try listener?.accept() {
          welcome(connection)
        }
      }
    } catch let error as SystemError {
      throw error.fault("internal", "the harness cannot listen any more")
    }
  }

  /// Starts the last job once more, for somebody who has the device in hand and no desktop: such as ten minutes, to see
  /// how speed lasts. Its events go to the observer, and are kept as any job's.
  ///
  /// - Parameter seconds: to measure.
  /// - Throws: `Fault` `not-found` where none was sent yet, `busy`.
  public func again(seconds: Double) throws {
    try harness.again(seconds: seconds)
  }

  /// Ends the session and the job that run, and then `run`.
  public func stop() {
    stopped.set()
  }

  private func welcome(_ connection: Socket) {
    guard sessions.wait(timeout: .now()) == .success else {
      Session.refuse(connection)
      return
    }
    sessions.enter()
    let session = Session(connection, harness: harness, storage: storage, idle: idle) { [stopped] in stopped.isSet }
    let thread = Thread { [sessions] in
      session.serve()
      sessions.leave()
    }
    thread.name = "session"
    thread.start()
  }
}
