// LiteRT for NativeRunner, by the C interface that the shared library of its Python wheel exports. The wheel has no
// headers: what is used of the interface is declared here.

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "jni_graph.h"

using edgesam::Buffer;

extern "C" {
typedef int Status;  // 0 is success
typedef struct Environment* EnvironmentHandle;
typedef struct Model* ModelHandle;
typedef struct Options* OptionsHandle;
typedef struct Opaque* OpaqueHandle;
typedef struct Compiled* CompiledHandle;
typedef struct Signature* SignatureHandle;
typedef struct TensorInfo* TensorHandle;
typedef struct Requirements* RequirementsHandle;
typedef struct TensorBuffer* BufferHandle;
// An element type, rank, dimensions and strides: 72 bytes, only passed on here.
typedef struct { uint64_t bytes[16]; } RankedType;

Status LiteRtCreateEnvironment(int count, const void* options, EnvironmentHandle* environment);
void LiteRtDestroyEnvironment(EnvironmentHandle environment);
Status LiteRtCreateModelFromFile(EnvironmentHandle environment, const char* path, ModelHandle* model);
void LiteRtDestroyModel(ModelHandle model);
Status LiteRtGetModelSignature(ModelHandle model, size_t index, SignatureHandle* signature);
Status LiteRtGetNumSignatureInputs(SignatureHandle signature, size_t* count);
Status LiteRtGetNumSignatureOutputs(SignatureHandle signature, size_t* count);
Status LiteRtGetSignatureInputName(SignatureHandle signature, size_t index, const char** name);
Status LiteRtGetSignatureOutputName(SignatureHandle signature, size_t index, const char** name);
Status LiteRtGetSignatureInputTensorByIndex(SignatureHandle signature, size_t index, TensorHandle* tensor);
Status LiteRtGetSignatureOutputTensorByIndex(SignatureHandle signature, size_t index, TensorHandle* tensor);
Status LiteRtGetRankedTensorType(TensorHandle tensor, RankedType* type);
Status LiteRtCreateOptions(OptionsHandle* options);
void LiteRtDestroyOptions(OptionsHandle options);
Status LiteRtSetOptionsHardwareAccelerators(OptionsHandle options, int accelerators);
Status LiteRtCreateOpaqueOptions(const char* kind, void* payload, void (*free)(void*), OpaqueHandle* opaque);
Status LiteRtAddOpaqueOptions(OptionsHandle options, OpaqueHandle opaque);
Status LiteRtCreateCompiledModel(
    EnvironmentHandle environment, ModelHandle model, OptionsHandle options, CompiledHandle* compiled);
void LiteRtDestroyCompiledModel(CompiledHandle compiled);
Status LiteRtCompiledModelIsFullyAccelerated(CompiledHandle compiled, bool* accelerated);
Status LiteRtGetCompiledModelInputBufferRequirements(
    CompiledHandle compiled, size_t signature, size_t index, RequirementsHandle* requirements);
Status LiteRtGetCompiledModelOutputBufferRequirements(
    CompiledHandle compiled, size_t signature, size_t index, RequirementsHandle* requirements);
Status LiteRtCreateManagedTensorBufferFromRequirements(
    EnvironmentHandle environment, const RankedType* type, RequirementsHandle requirements, BufferHandle* buffer);
void LiteRtDestroyTensorBuffer(BufferHandle buffer);
Status LiteRtGetTensorBufferPackedSize(BufferHandle buffer, size_t* bytes);
Status LiteRtLockTensorBuffer(BufferHandle buffer, void** address, int mode);
Status LiteRtUnlockTensorBuffer(BufferHandle buffer);
Status LiteRtRunCompiledModel(
    CompiledHandle compiled, size_t signature, size_t inputs, BufferHandle* input, size_t outputs, BufferHandle* output);
}

namespace {

const int kCpu = 1;
const int kRead = 0;
const int kWrite = 1;

void check(Status status, const char* step) {
  if (status != 0) throw std::runtime_error(std::string(step) + ": LiteRT status " + std::to_string(status));
}

struct Port {
  std::string name;
  BufferHandle buffer;
};

// A model with its buffers. Destroyed in the opposite order, also where making it failed halfway.
class Graph {
 public:
  Graph(const std::string& path, int threads) {
    try {
      open(path, threads);
    } catch (...) {
      close();
      throw;
    }
  }

  ~Graph() { close(); }

  bool accelerated() const {
    bool accelerated = false;
    return LiteRtCompiledModelIsFullyAccelerated(compiled_, &accelerated) == 0 && accelerated;
  }

  void run(const std::vector<Buffer>& inputs, const std::vector<Buffer>& outputs) {
    for (const Buffer& input : inputs) copy(find(inputs_, input), input, kWrite);
    std::vector<BufferHandle> in, out;
    for (const Port& port : inputs_) in.push_back(port.buffer);
    for (const Port& port : outputs_) out.push_back(port.buffer);
    check(LiteRtRunCompiledModel(compiled_, 0, in.size(), in.data(), out.size(), out.data()), "run");
    for (const Buffer& output : outputs) copy(find(outputs_, output), output, kRead);
  }

 private:
  void open(const std::string& path, int threads) {
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), "environment");
    check(LiteRtCreateModelFromFile(environment_, path.c_str(), &model_), "model");
    check(LiteRtCreateOptions(&options_), "options");
    check(LiteRtSetOptionsHardwareAccelerators(options_, kCpu), "options");
    if (threads > 0) {
      OpaqueHandle opaque = nullptr;
      char* toml = strdup(("num_threads = " + std::to_string(threads) + "\n").c_str());
      check(LiteRtCreateOpaqueOptions("xnnpack", toml, std::free, &opaque), "threads");
      check(LiteRtAddOpaqueOptions(options_, opaque), "threads");
    }
    check(LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_), "compile");
    SignatureHandle signature = nullptr;
    check(LiteRtGetModelSignature(model_, 0, &signature), "signature");
    ports(signature, LiteRtGetNumSignatureInputs, LiteRtGetSignatureInputName, LiteRtGetSignatureInputTensorByIndex,
          LiteRtGetCompiledModelInputBufferRequirements, inputs_);
    ports(signature, LiteRtGetNumSignatureOutputs, LiteRtGetSignatureOutputName, LiteRtGetSignatureOutputTensorByIndex,
          LiteRtGetCompiledModelOutputBufferRequirements, outputs_);
  }

  template <typename Count, typename Name, typename Tensor, typename Require>
  void ports(SignatureHandle signature, Count count, Name name, Tensor tensor, Require require, std::vector<Port>& into) {
    size_t number = 0;
    check(count(signature, &number), "signature");
    for (size_t i = 0; i < number; i++) {
      const char* text = nullptr;
      TensorHandle handle = nullptr;
      RankedType type = {};
      RequirementsHandle requirements = nullptr;
      BufferHandle buffer = nullptr;
      check(name(signature, i, &text), "signature");
      check(tensor(signature, i, &handle), "signature");
      check(LiteRtGetRankedTensorType(handle, &type), "tensor type");
      check(require(compiled_, 0, i, &requirements), "buffer requirements");
      check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, requirements, &buffer), "buffer");
      into.push_back({text, buffer});
    }
  }

  static BufferHandle find(const std::vector<Port>& ports, const Buffer& wanted) {
    for (const Port& port : ports) {
      if (port.name == wanted.name) return port.buffer;
    }
    throw std::runtime_error("the model has no " + wanted.name);
  }

  static void copy(BufferHandle handle, const Buffer& buffer, int mode) {
    size_t bytes = 0;
    void* address = nullptr;
    check(LiteRtGetTensorBufferPackedSize(handle, &bytes), "buffer");
    if (bytes != buffer.bytes) throw std::runtime_error(buffer.name + " has another size");
    check(LiteRtLockTensorBuffer(handle, &address, mode), "buffer");
    std::memcpy(mode == kWrite ? address : buffer.data, mode == kWrite ? buffer.data : address, bytes);
    check(LiteRtUnlockTensorBuffer(handle), "buffer");
  }

  void close() {
    for (const Port& port : inputs_) LiteRtDestroyTensorBuffer(port.buffer);
    for (const Port& port : outputs_) LiteRtDestroyTensorBuffer(port.buffer);
    if (compiled_ != nullptr) LiteRtDestroyCompiledModel(compiled_);
    if (options_ != nullptr) LiteRtDestroyOptions(options_);
    if (model_ != nullptr) LiteRtDestroyModel(model_);
    if (environment_ != nullptr) LiteRtDestroyEnvironment(environment_);
  }

  EnvironmentHandle environment_ = nullptr;
  ModelHandle model_ = nullptr;
  OptionsHandle options_ = nullptr;
  CompiledHandle compiled_ = nullptr;
  std::vector<Port> inputs_, outputs_;
};

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_dev_edgesam_harness_host_LiteRtRunner_load(
    JNIEnv* env, jobject, jbyteArray path, jint threads) {
  jlong handle = 0;
  edgesam::guarded(env, [&] { handle = reinterpret_cast<jlong>(new Graph(edgesam::text(env, path), threads)); });
  return handle;
}

JNIEXPORT void JNICALL Java_dev_edgesam_harness_host_LiteRtRunner_run(
    JNIEnv* env, jobject, jlong graph, jobjectArray inputs, jobjectArray names, jobjectArray, jintArray,
    jobjectArray outputs, jobjectArray output_names) {
  edgesam::guarded(env, [&] {
    reinterpret_cast<Graph*>(graph)->run(edgesam::buffers(env, inputs, names, nullptr, nullptr),
                                         edgesam::buffers(env, outputs, output_names, nullptr, nullptr));
  });
}

JNIEXPORT jboolean JNICALL Java_dev_edgesam_harness_host_LiteRtRunner_accelerated(JNIEnv*, jobject, jlong graph) {
  return reinterpret_cast<Graph*>(graph)->accelerated();
}

JNIEXPORT void JNICALL Java_dev_edgesam_harness_host_LiteRtRunner_free(JNIEnv*, jobject, jlong graph) {
  delete reinterpret_cast<Graph*>(graph);
}

}  // extern "C"
