"""In which precision a device computes fast: what `training.precision: auto` comes to."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def fast_precision(device: str) -> Precision:
    """bf16 where the device multiplies such numbers itself, else fp32.

    A CPU that does not do so computes them one by one: of one with AVX2 alone a bf16 matrix product
    was 140 times slower than a float32 one.

    Args:
        device: ``cpu`` or ``cuda``; what is asked is this process's own.
    """
    if device == "cuda":
        own = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # PyTorch before 2.10 cannot tell.
        known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        own = bool(known.get("amx_bf16") or known.get("avx512_bf16"))
    return "bf16" if own else "fp32"


def use_full_float32() -> None:
    """Have a GPU take float32 for float32: TF32, cuDNN's default, keeps 10 bits of its 23."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def settled(precision: str) -> Precision:
    """A precision to compute in.

    Raises:
        ValueError: it is still `auto`; see `fast_precision`.
    """
    if precision == "fp32":
        return "fp32"
    if precision == "bf16":
        return "bf16"
    raise ValueError(f"precision: found {precision}, expected fp32 or bf16")
