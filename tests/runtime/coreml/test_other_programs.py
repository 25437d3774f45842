"""Programs not made by this project: networks with other layers, as coremltools converts and compresses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mil_programs import converting
from networks import Attention, Pyramid, Recurrent, Residual, seeded
from torch import Tensor, nn

from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.program import Program, read_program
from edgesam_mobile.runtime.coreml.types import ProgramError

# torch.jit warns of each shape that a trace makes a constant of.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")]
WORDS = torch.randint(0, 50, (1, 12), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
PICTURE = torch.randint(0, 256, (1, 3, 32, 46), generator=torch.Generator().manual_seed(0)) / 255
EXAMPLES = {Residual: PICTURE, Attention: WORDS, Pyramid: PICTURE}


def converted(
    network: nn.Module,
    given: Tensor,
    path: Path,
    system: str,
    *,
    half: bool = False,
    picture: dict[str, Any] | None = None,
    then: Callable[[Any], Any] = lambda model: model,
) -> Program:
    """Traced, converted, compressed by ``then``, saved and read; ``picture`` says how an image becomes numbers."""
    import coremltools as ct

    with converting():
        if picture is None:
            port = ct.TensorType("given", given.shape, given[:0].numpy().dtype.type)
        else:
            port = ct.ImageType("given", given.shape, **picture)
        model = ct.convert(
            torch.jit.trace(network, given),
            inputs=[port],
            outputs=[ct.TensorType(f"y{place}") for place in range(len(network(given)))],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, system),
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )
        model = then(model)
        model.save(str(path))
        del model
    return read_program(path)


def furthest(answers: dict[str, Tensor], wanted: tuple[Tensor, ...]) -> float:
    """The largest difference of any answer, as a share of its largest number; whole numbers must be the same."""
    assert len(answers) == len(wanted)
    differences = []
    for place, expected in enumerate(wanted):
        found = answers[f"y{place}"]
        assert found.shape == expected.shape
        if expected.is_floating_point():
            differences.append(((found - expected).abs().max() / expected.abs().max()).item())
        else:
            assert torch.equal(found.long(), expected)
    return max(differences)


@pytest.mark.parametrize("system", ["iOS15", "iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize("network", EXAMPLES)
def test_other_networks_answer_as_in_pytorch(network: type[nn.Module], system: str, tmp_path: Path) -> None:
    """Measured at most: 3.4e-7; in half precision 4.6e-4 by the weights' rounding, 1.4e-3 with that of results."""
    net, given = seeded(network), EXAMPLES[network]
    program = converted(net, given, tmp_path / "single.mlpackage", system)
    assert program.system == system.replace("iOS", "iOS ")
    assert furthest(Interpreter(program).run({"given": given}), net(given)) < 2e-6
    rounded = converted(net, given, tmp_path / "half.mlpackage", system, half=True)
    exact, device = (
        furthest(Interpreter(rounded, mode=mode).run({"given": given}), net(given))
        for mode in ("exact", "device-like")
    )
    assert 2e-6 < exact < 1.5e-3
    assert exact < device < 5e-3


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_a_picture_becomes_numbers_as_the_program_says(layout: str, tmp_path: Path) -> None:
    """A program takes the channels in the order that it declares."""
    net = seeded(Residual)
    said = {"color_layout": layout, "scale": 1 / 64, "bias": [-0.5, 0.25, 1.0]}
    program = converted(net, PICTURE, tmp_path / "model.mlpackage", "iOS16", picture=said)
    assert program.features["given"].image == layout
    colours = PICTURE * 255
    answers = Interpreter(program).run({"given": colours})
    assert furthest(answers, net(colours / 64 + torch.tensor(said["bias"]).reshape(3, 1, 1))) < 2e-6


def compressed(kind: str, model: Any) -> Any:
    import coremltools.optimize.coreml as cto

    linear = {"mode": "linear_symmetric", "weight_threshold": 0}
    palette = {"mode": "uniform", "weight_threshold": 0}
    quantised = {
        "int8": cto.OpLinearQuantizerConfig(**linear),
        "int8 asymmetric": cto.OpLinearQuantizerConfig(**linear | {"mode": "linear"}),
        "int4 in blocks": cto.OpLinearQuantizerConfig(**linear, dtype="int4", granularity="per_block", block_size=8),
    }
    palettised = {
        "palette": cto.OpPalettizerConfig(**palette, nbits=6),
        "palette a group": cto.OpPalettizerConfig(
            **palette, nbits=6, granularity="per_grouped_channel", group_size=8
        ),
    }
    if kind in quantised:
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(quantised[kind]))
    if kind in palettised:
        return cto.palettize_weights(model, cto.OptimizationConfig(palettised[kind]))
    pruner = cto.OpMagnitudePrunerConfig(target_sparsity=0.1, weight_threshold=0)
    model = cto.prune_weights(model, cto.OptimizationConfig(pruner))
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(quantised["int8"]), joint_compression=True)


@pytest.mark.parametrize(
    ("kind", "system", "operations", "most"),
    [
        ("int8", "iOS16", {"constexpr_affine_dequantize"}, 0.015),
        ("int8 asymmetric", "iOS17", {"constexpr_affine_dequantize"}, 0.015),
        ("int8", "iOS18", {"constexpr_blockwise_shift_scale"}, 0.015),
        ("int4 in blocks", "iOS18", {"constexpr_blockwise_shift_scale"}, 0.1),
        ("palette", "iOS16", {"constexpr_lut_to_dense"}, 0.05),
        ("palette a group", "iOS18", {"constexpr_lut_to_dense"}, 0.05),
        ("pruned too", "iOS18", {"constexpr_sparse_to_dense", "constexpr_sparse_blockwise_shift_scale"}, 0.15),
    ],
)
def test_weights_compressed_by_coremltools_are_those_that_it_says(
    kind: str, system: str, operations: set[str], most: float, tmp_path: Path
) -> None:
    """Decompressed by coremltools itself, the program answers the same. From PyTorch, measured: 0.007 with 8 bits,
    0.056 with 4, 0.023 and 0.031 with palettes, 0.086 where a tenth of the weights is 0 besides."""
    import coremltools.optimize.coreml as cto

    net = seeded(Pyramid)
    small = converted(net, PICTURE, tmp_path / "small.mlpackage", system, then=lambda model: compressed(kind, model))
    large = converted(
        net,
        PICTURE,
        tmp_path / "large.mlpackage",
        system,
        then=lambda model: cto.decompress_weights(compressed(kind, model)),
    )
    found = [{name for name in program.op_types() if name.startswith("constexpr_")} for program in (small, large)]
    assert found == [operations, set()]
    answers, again = (Interpreter(program).run({"given": PICTURE}) for program in (small, large))
    assert all(torch.equal(again[name], answer) for name, answer in answers.items())
    assert 1e-3 < furthest(answers, net(PICTURE)) < most


@pytest.mark.parametrize(
    ("kind", "named"),
    [(nn.LSTM, "the operation lstm is not supported"), (nn.GRU, r"while_loop .*blocks inside \(control flow\)")],
)
def test_what_is_not_run_is_named(kind: type[nn.LSTM] | type[nn.GRU], named: str, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=named):
        Interpreter(converted(seeded(Recurrent, kind), torch.zeros(1, 5, 8), tmp_path / "model.mlpackage", "iOS16"))
