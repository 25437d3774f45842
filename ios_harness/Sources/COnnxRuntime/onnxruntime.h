// ONNX Runtime's C interface as Debian's libonnxruntime-dev has it. Nothing is linked: the library is loaded by its path.
#include <onnxruntime/onnxruntime_c_api.h>
