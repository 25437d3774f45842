// ExecuTorch for NativeRunner, by the shared libraries and headers of its Python wheel.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr_maker.h>
#include <sched.h>

#include <cstring>

#include "jni_graph.h"

using edgesam::Buffer;
using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::runtime::Error;

namespace {

void check(Error error, const char* step) {
  if (error != Error::Ok) {
    throw std::runtime_error(std::string(step) + ": ExecuTorch error " + std::to_string(static_cast<int>(error)));
  }
}

// ExecuTorch sizes its pool by the processors that the thread may use, and has no other setting here.
void bind(int threads) {
  cpu_set_t allowed, chosen;
  CPU_ZERO(&chosen);
  sched_getaffinity(0, sizeof(allowed), &allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&chosen) < threads; cpu++) {
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(cpu, &chosen);
  }
  sched_setaffinity(0, sizeof(chosen), &chosen);
}

void run(Module& module, const std::vector<Buffer>& inputs, const std::vector<Buffer>& outputs) {
  std::vector<executorch::extension::TensorPtr> tensors;
  std::vector<executorch::runtime::EValue> values;
  for (const Buffer& input : inputs) {
    const ScalarType type =
        input.type == 4 ? ScalarType::Float : input.type == 2 ? ScalarType::Half : ScalarType::Byte;
    tensors.push_back(executorch::extension::from_blob(input.data, input.shape, type));
    values.emplace_back(tensors.back());
  }
  auto answered = module.forward(values);
  check(answered.error(), "run");
  if (answered->size() != outputs.size()) throw std::runtime_error("another number of outputs than the manifest says");
  for (size_t i = 0; i < outputs.size(); i++) {
    const auto& tensor = answered->at(i).toTensor();
    if (tensor.nbytes() != outputs[i].bytes) throw std::runtime_error(outputs[i].name + " has another size");
    std::memcpy(outputs[i].data, tensor.const_data_ptr(), outputs[i].bytes);
  }
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_dev_edgesam_harness_host_ExecuTorchRunner_load(
    JNIEnv* env, jobject, jbyteArray path, jint threads) {
  jlong handle = 0;
  edgesam::guarded(env, [&] {
    if (threads > 0) bind(threads);
    auto module = std::make_unique<Module>(edgesam::text(env, path));
    check(module->load_forward(), "load");
    handle = reinterpret_cast<jlong>(module.release());
  });
  return handle;
}

JNIEXPORT void JNICALL Java_dev_edgesam_harness_host_ExecuTorchRunner_run(
    JNIEnv* env, jobject, jlong graph, jobjectArray inputs, jobjectArray names, jobjectArray shapes, jintArray types,
    jobjectArray outputs, jobjectArray output_names) {
  edgesam::guarded(env, [&] {
    run(*reinterpret_cast<Module*>(graph), edgesam::buffers(env, inputs, names, shapes, types),
        edgesam::buffers(env, outputs, output_names, nullptr, nullptr));
  });
}

JNIEXPORT jboolean JNICALL Java_dev_edgesam_harness_host_ExecuTorchRunner_accelerated(
    JNIEnv*, jobject, jlong graph) {
  const auto meta = reinterpret_cast<Module*>(graph)->method_meta("forward");
  return meta.ok() && meta->uses_backend("XnnpackBackend");
}

JNIEXPORT void JNICALL Java_dev_edgesam_harness_host_ExecuTorchRunner_free(JNIEnv*, jobject, jlong graph) {
  delete reinterpret_cast<Module*>(graph);
}

}  // extern "C"
