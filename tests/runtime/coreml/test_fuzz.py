"""Packages with random damage run, or are refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from mil_damage import FOLDER, block, execute, resize

from edgesam_mobile.runtime.coreml.types import ProgramError


def spoiled(content: bytes, dice: random.Random) -> bytes:
    """Bytes with a few of them altered, cut, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        place, length = dice.randrange(len(data)), dice.randint(1, 16)
        match dice.randrange(5):
            case 0 | 1:
                data[place] ^= 1 << dice.randrange(8)
            case 2:
                data[place] = dice.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 3:
                del data[place : place + length]
            case _:
                other = dice.randrange(len(data))
                data[place : place + length] = data[other : other + length]
    return bytes(data) or b"\0"


NUMBERS = [0, 1, -1, 2, 3, 4, 7, -8, 1 << 15, (1 << 31) - 1, -(1 << 31)]


def distorted(content: bytes, dice: random.Random) -> bytes:
    """A model that can be parsed, with a few of its operations, types or constants altered."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString(content)
    operations = block(model).operations
    names = [output.name for item in operations for output in item.outputs]
    for _ in range(dice.randint(1, 3)):
        item = dice.choice(operations)
        arguments = [argument for key in sorted(item.inputs) for argument in item.inputs[key].arguments]
        tensor = item.attributes["val"].immediateValue.tensor if "val" in item.attributes else None
        match dice.randrange(7):
            case 0 if item.type != "const":
                item.type = dice.choice([other.type for other in operations])
            case 1 if arguments:
                dice.choice(arguments).name = dice.choice(names)
            case 2:
                kind = dice.choice(item.outputs).type
                resize(kind, *(abs(dice.choice(NUMBERS)) for _ in range(dice.randrange(5))))
            case 3:
                kind = dice.choice(item.outputs).type
                kind.tensorType.dataType = dice.choice([1, 2, 10, 11, 12, 21, 23, 24, 25, 31, 37])
            case 4 | 5 if tensor is not None and tensor.ints.values:
                tensor.ints.values[dice.randrange(len(tensor.ints.values))] = dice.choice(NUMBERS)
            case 6 if tensor is not None and tensor.floats.values:
                tensor.floats.values[0] = dice.choice([0, -1, 1e30, float("inf"), float("nan")])
            case _:
                operations.remove(item)
    return model.SerializeToString(deterministic=True)


FUZZ = [
    (f"{FOLDER}/model.mlmodel", spoiled, 500),
    (f"{FOLDER}/model.mlmodel", distorted, 500),
    (f"{FOLDER}/weights/weight.bin", spoiled, 150),
    ("Manifest.json", spoiled, 100),
]


@pytest.mark.parametrize(("name", "spoil", "times"), FUZZ, ids=["bytes", "messages", "weights", "listing"])
def test_whatever_is_wrong_ends_in_one_line(
    name: str, spoil: Callable[[bytes, random.Random], bytes], times: int, copy: Path
) -> None:
    content = (copy / name).read_bytes()
    escaped: dict[str, int] = {}
    refused = 0
    for seed in range(times):
        (copy / name).write_bytes(spoil(content, random.Random(seed)))
        try:
            execute(copy)
        except ProgramError as error:
            refused += 1
            if "\n" in str(error):
                escaped.setdefault(f"several lines: {error}", seed)
        except Exception as error:
            escaped.setdefault(f"{type(error).__name__}: {error}", seed)
    assert not escaped, "\n".join(f"seed {seed}: {said!r}" for said, seed in escaped.items())
    assert refused > times // 10


# -- what is given, and how it is rounded
