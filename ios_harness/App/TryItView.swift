import EdgeSAMKit
import PhotosUI
import SwiftUI

/// Choose or take a photo, tap an object or drag a box round it, and see its mask and how long it took.
struct TryItView: View {
  @StateObject private var model = TryItModel()
  @State private var chosen: PhotosPickerItem?
  @State private var takesPhoto = false
  @State private var box: CGRect?

  var body: some View {
    NavigationStack {
      VStack {
        canvas
        Text(model.status).font(.footnote.monospacedDigit()).frame(maxWidth: .infinity, minHeight: 40)
        controls
      }
      .padding()
      .navigationTitle("Try it")
      .toolbar { choice }
      .onAppear { model.look() }
      .onChange(of: chosen) { load() }
      .fullScreenCover(isPresented: $takesPhoto) {
        Camera { data in
          takesPhoto = false
          if let data { model.use(data) }
        }
        .ignoresSafeArea()
      }
    }
  }

  @ViewBuilder private var canvas: some View {
    if let image = model.image {
      GeometryReader { space in
        let scale = min(space.size.width / CGFloat(image.width), space.size.height / CGFloat(image.height))
        let size = CGSize(width: CGFloat(image.width) * scale, height: CGFloat(image.height) * scale)
        ZStack {
          Image(decorative: image, scale: 1).resizable()
          if let overlay = model.overlay { Image(decorative: overlay, scale: 1).resizable() }
          if let box {
            Rectangle().path(in: box).stroke(.white, lineWidth: 2)
          }
        }
        .frame(width: size.width, height: size.height)
        .contentShape(Rectangle())
        .gesture(prompt(scale, size))
        .position(x: space.size.width / 2, y: space.size.height / 2)
      }
    } else {
      ContentUnavailableView("No picture", systemImage: "photo", description: Text("Choose one, or take one."))
    }
  }

  private func prompt(_ scale: CGFloat, _ size: CGSize) -> some Gesture {
    func pixel(_ place: CGPoint) -> CGPoint {
      CGPoint(x: min(max(place.x, 0), size.width) / scale, y: min(max(place.y, 0), size.height) / scale)
    }
    func isBox(_ drag: DragGesture.Value) -> Bool {
      abs(drag.translation.width) > 12 && abs(drag.translation.height) > 12
    }
    return DragGesture(minimumDistance: 0)
      .onChanged { drag in
        box =
          isBox(drag)
          ? CGRect(origin: drag.startLocation, size: drag.translation).standardized : nil
      }
      .onEnded { drag in
        box = nil
        model.segment(from: pixel(drag.startLocation), to: pixel(drag.location), isBox: isBox(drag))
      }
  }

  private var controls: some View {
    HStack {
      PhotosPicker("Choose", selection: $chosen, matching: .images)
      Spacer()
      if UIImagePickerController.isSourceTypeAvailable(.camera) {
        Button("Take") { takesPhoto = true }
      }
    }
    .buttonStyle(.bordered)
  }

  private var choice: some View {
    Menu("Model") {
      Picker("Artefact", selection: $model.choice) {
        ForEach(model.choices, id: \.self) { Text($0.name).tag(Optional($0)) }
      }
      Picker("Compute units", selection: $model.units) {
        ForEach(ComputeUnits.allCases, id: \.self) { Text($0.rawValue).tag($0) }
      }
    }
  }

  private func load() {
    guard let chosen else { return }
    Task {
      if let data = try? await chosen.loadTransferable(type: Data.self) { model.use(data) }
    }
  }
}

/// The system's camera; gives a JPEG, or nil if nobody took a photo.
private struct Camera: UIViewControllerRepresentable {
  let done: (Data?) -> Void

  func makeUIViewController(context: Context) -> UIImagePickerController {
    let controller = UIImagePickerController()
    controller.sourceType = .camera
    controller.delegate = context.coordinator
    return controller
  }

  func updateUIViewController(_ controller: UIImagePickerController, context: Context) {}

  func makeCoordinator() -> Coordinator { Coordinator(done) }

  final class Coordinator: NSObject, UIImagePickerControllerDelegate, UINavigationControllerDelegate {
    private let done: (Data?) -> Void

    init(_ done: @escaping (Data?) -> Void) {
      self.done = done
    }

    func imagePickerController(
      _ picker: UIImagePickerController, didFinishPickingMediaWithInfo info: [UIImagePickerController.InfoKey: Any]
    ) {
      done((info[.originalImage] as? UIImage)?.jpegData(compressionQuality: 0.95))
    }

    func imagePickerControllerDidCancel(_ picker: UIImagePickerController) {
      done(nil)
    }
  }
}
