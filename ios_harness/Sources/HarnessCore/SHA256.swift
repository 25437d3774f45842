import Foundation

#if canImport(CryptoKit)
  import CryptoKit
#endif

/// The SHA-256 of bytes that come in pieces: the system's where it has one, our own elsewhere.
struct Digest {
  #if canImport(CryptoKit)
    private var hash = CryptoKit.SHA256()

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
      hash.update(bufferPointer: bytes)
    }

    /// All of it in lower-case hexadecimal digits.
    func hexadecimal() -> String {
      hash.finalize().map(Digest.digits).joined()
    }
  #else
    private var hash = PortableSHA256()

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
      hash.update(bytes)
    }

    /// All of it in lower-case hexadecimal digits.
    func hexadecimal() -> String {
      hash.finalized().map(Digest.digits).joined()
    }
  #endif

  static func digits(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
  }
}

/// SHA-256 as FIPS 180-4 defines it, for systems without a library of their own.
struct PortableSHA256 {
  private static let block = 64
  private static let primes = firstPrimes(64)
  /// The first 32 bits of what is behind the point of the cube roots of the first 64 primes.
  private static let rounds = primes.map { behindThePoint(cbrt(Double($0))) }

  /// Likewise of the square roots of the first eight.
  private var state = primes.prefix(8).map { behindThePoint(Double($0).squareRoot()) }
  private var rest: [UInt8] = []
  private var length: UInt64 = 0
  private var schedule = [UInt32](repeating: 0, count: 64)

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    length += UInt64(bytes.count)
    var at = 0
    if !rest.isEmpty {
      at = min(PortableSHA256.block - rest.count, bytes.count)
      rest.append(contentsOf: bytes[..<at])
      guard rest.count == PortableSHA256.block else {
        return
      }
      let whole = rest
      rest.removeAll()
      whole.withUnsafeBytes { compress($0, 0) }
    }
    while at + PortableSHA256.block <= bytes.count {
      compress(bytes, at)
      at += PortableSHA256.block
    }
    rest.append(contentsOf: bytes[at...])
  }

  /// The 32 bytes for what came so far.
  func finalized() -> [UInt8] {
    var copy = self
    let zeros = (119 - rest.count) % PortableSHA256.block
    let bits = (0..<8).map { UInt8(truncatingIfNeeded: (length * 8) >> (56 - 8 * $0)) }
    let end = [0x80] + [UInt8](repeating: 0, count: zeros) + bits
    end.withUnsafeBytes { copy.update($0) }
    return copy.state.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) } }
  }

  private mutating func compress(_ bytes: UnsafeRawBufferPointer, _ at: Int) {
    schedule.withUnsafeMutableBufferPointer { words in
      for t in 0..<16 {
        words[t] = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: at + 4 * t, as: UInt32.self))
      }
      for t in 16..<64 {
        let early = words[t - 15]
        let late = words[t - 2]
        let first = rotated(early, 7) ^ rotated(early, 18) ^ (early >> 3)
        let second = rotated(late, 17) ^ rotated(late, 19) ^ (late >> 10)
        words[t] = words[t - 16] &+ first &+ words[t - 7] &+ second
      }
    }
    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
    schedule.withUnsafeBufferPointer { words in
      PortableSHA256.rounds.withUnsafeBufferPointer { constants in
        for t in 0..<64 {
          let chosen = (e & f) ^ (~e & g)
          let first = h &+ (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) &+ chosen &+ constants[t] &+ words[t]
          let second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) &+ ((a & b) ^ (a & c) ^ (b & c))
          (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
        }
      }
    }
    for (index, word) in [a, b, c, d, e, f, g, h].enumerated() {
      state[index] = state[index] &+ word
    }
  }

  private static func firstPrimes(_ count: Int) -> [Int] {
    var primes: [Int] = []
    for number in 2... where primes.allSatisfy({ number % $0 != 0 }) {
      primes.append(number)
      if primes.count == count {
        break
      }
    }
    return primes
  }

  private static func behindThePoint(_ number: Double) -> UInt32 {
    UInt32((number - number.rounded(.down)) * 0x1p32)
  }
}

@inline(__always)
private func rotated(_ word: UInt32, _ by: UInt32) -> UInt32 {
  (word >> by) | (word << (32 - by))
}
