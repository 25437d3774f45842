"""Runs one TFLite model for :mod:`edgesam_mobile.runtime.old_tflite`, in the environment of tflite-runtime.

Imports nothing of this project, which is not installed there. Requests and answers are NumPy archives, each after its
length in eight bytes; an archive that holds ``error`` alone says what went wrong.
"""

import io
import os
import struct
import sys

import numpy as np


def main() -> None:
    """``python old_tflite_worker.py MODEL THREADS``: answers once when loaded, then once a request."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        from tflite_runtime.interpreter import Interpreter

        interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]))
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner()
    except Exception as error:
        _send(answers, {"error": np.array(str(error))})
        return
    _send(answers, {})
    while header := sys.stdin.buffer.read(8):
        with np.load(io.BytesIO(sys.stdin.buffer.read(struct.unpack("<Q", header)[0])), allow_pickle=False) as given:
            inputs = dict(given)
        try:
            _send(answers, run(**inputs))
        except Exception as error:
            _send(answers, {"error": np.array(str(error))})


def _send(stream, arrays) -> None:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


if __name__ == "__main__":
    main()
