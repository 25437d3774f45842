"""Core ML programs on any machine: a reader of ``.mlpackage`` and an interpreter on torch.

It answers whether a *program* is right: its operations, constants and types. Apple's kernels and the Neural Engine's
numbers are not in it; the mode ``device-like`` rounds every half-precision result, which is what they do at least.

| module | what |
| -- | -- |
| ``package`` | folder to protobuf, within bounds |
| ``blobs`` | ``weight.bin`` |
| ``program`` | protobuf to plain dataclasses |
| ``ops`` | what each operation computes |
| ``interpreter`` | runs a program |
| ``session`` | runs a graph of a package |
| ``embedded`` | the package inside an ExecuTorch program |
| ``placement`` | which of Apple's processors may take which operation: an estimate |
"""
