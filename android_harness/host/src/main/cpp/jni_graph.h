// What both runtimes' bridges share: the arguments of NativeRunner.run, taken out of Java.

#ifndef EDGESAM_JNI_GRAPH_H
#define EDGESAM_JNI_GRAPH_H

#include <jni.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace edgesam {

// One input or output. `type` is the bytes of a number: 4 float32, 2 float16, 1 uint8.
struct Buffer {
  std::string name;
  void* data;
  size_t bytes;
  std::vector<int32_t> shape;
  int type;
};

inline std::string text(JNIEnv* env, jbyteArray array) {
  std::string text(env->GetArrayLength(array), '\0');
  env->GetByteArrayRegion(array, 0, text.size(), reinterpret_cast<jbyte*>(&text[0]));
  return text.c_str();
}

// `shapes` and `types` may be null.
inline std::vector<Buffer> buffers(
    JNIEnv* env, jobjectArray data, jobjectArray names, jobjectArray shapes, jintArray types) {
  std::vector<Buffer> buffers(env->GetArrayLength(data));
  for (size_t i = 0; i < buffers.size(); i++) {
    jobject buffer = env->GetObjectArrayElement(data, i);
    jobject name = env->GetObjectArrayElement(names, i);
    buffers[i].name = text(env, static_cast<jbyteArray>(name));
    buffers[i].data = env->GetDirectBufferAddress(buffer);
    buffers[i].bytes = env->GetDirectBufferCapacity(buffer);
    if (shapes != nullptr) {
      jintArray shape = static_cast<jintArray>(env->GetObjectArrayElement(shapes, i));
      buffers[i].shape.resize(env->GetArrayLength(shape));
      env->GetIntArrayRegion(shape, 0, buffers[i].shape.size(), buffers[i].shape.data());
      env->GetIntArrayRegion(types, i, 1, &buffers[i].type);
      env->DeleteLocalRef(shape);
    }
    env->DeleteLocalRef(buffer);
    env->DeleteLocalRef(name);
  }
  return buffers;
}

// Runs `body`; what it throws becomes a RuntimeException with the same words.
template <typename Body>
void guarded(JNIEnv* env, Body body) {
  try {
    body();
  } catch (const std::exception& error) {
    env->ThrowNew(env->FindClass("java/lang/RuntimeException"), error.what());
  }
}

}  // namespace edgesam

#endif
