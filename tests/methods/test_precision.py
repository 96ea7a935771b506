import pytest
import torch

from sdn_ray.methods.precision import fast_precision, settled
from sdn_ray.methods.sdn import Computing


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"avx2": True}, "fp32"),  # where a bf16 product is computed number by number
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"architecture": "aarch64", "neon": True}, "fp32"),
    ],
)
def test_a_cpu_is_asked_whether_it_multiplies_bf16(monkeypatch, known, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert fast_precision("cpu") == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_that_only_emulates_bf16_takes_fp32(monkeypatch, native, expected):
    def supported(including_emulation=True):
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert fast_precision("cuda") == expected


def test_a_loop_computes_in_a_settled_precision():
    assert (settled("fp32"), settled("bf16")) == ("fp32", "bf16")
    assert Computing().precision == settled("fp32")
    with pytest.raises(ValueError, match="found auto, expected fp32 or bf16"):
        settled("auto")
