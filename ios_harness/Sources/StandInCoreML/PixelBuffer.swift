import Foundation

// Core ML's headers bring Core Video's buffers with them.

/// https://developer.apple.com/documentation/corevideo/cvpixelbuffer
open class CVPixelBuffer {
  public let address: UnsafeMutableRawPointer
  public let width: Int
  public let height: Int

  init(address: UnsafeMutableRawPointer, width: Int, height: Int) {
    self.address = address
    self.width = width
    self.height = height
  }
}

/// https://developer.apple.com/documentation/corevideo/cvreturn
public typealias CVReturn = Int32
/// https://developer.apple.com/documentation/kernel/ostype
public typealias OSType = UInt32
/// https://developer.apple.com/documentation/corefoundation/cfallocator
public typealias CFAllocator = AnyObject
/// https://developer.apple.com/documentation/corefoundation/cfdictionary
public typealias CFDictionary = AnyObject
/// https://developer.apple.com/documentation/corevideo/cvpixelbufferreleasebytescallback
public typealias CVPixelBufferReleaseBytesCallback =
  @convention(c) (UnsafeMutableRawPointer?, UnsafeRawPointer?) -> Void

/// https://developer.apple.com/documentation/corevideo/kcvreturnsuccess
public let kCVReturnSuccess: CVReturn = 0
/// https://developer.apple.com/documentation/corevideo/kcvpixelformattype_32bgra
public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241

/// https://developer.apple.com/documentation/corevideo/cvpixelbuffercreatewithbytes(_:_:_:_:_:_:_:_:_:_:)
public func CVPixelBufferCreateWithBytes(
  _ allocator: CFAllocator?, _ width: Int, _ height: Int, _ pixelFormatType: OSType,
  _ baseAddress: UnsafeMutableRawPointer, _ bytesPerRow: Int,
  _ releaseCallback: CVPixelBufferReleaseBytesCallback?, _ releaseRefCon: UnsafeMutableRawPointer?,
  _ pixelBufferAttributes: CFDictionary?, _ pixelBufferOut: UnsafeMutablePointer<CVPixelBuffer?>
) -> CVReturn {
  guard pixelFormatType == kCVPixelFormatType_32BGRA, bytesPerRow == 4 * width else { return -6680 }
  pixelBufferOut.pointee = CVPixelBuffer(address: baseAddress, width: width, height: height)
  return kCVReturnSuccess
}
