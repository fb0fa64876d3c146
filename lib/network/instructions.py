"""Which instructions of this CPU the engine may use: they decide which precision is fast.

OpenVINO's kernels come from oneDNN, which obeys ONEDNN_MAX_CPU_ISA. OpenVINO's own detection does
not: without this module `auto` would choose bfloat16 where its instructions are switched off.
"""

import os
from pathlib import Path

_WITHOUT_VNNI = {"SSE41", "AVX", "AVX2", "AVX512_CORE"}
_WITHOUT_BF16 = _WITHOUT_VNNI | {"AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE_VNNI"}
_CPUINFO = Path("/proc/cpuinfo")


def has_vnni(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether 8-bit products are summed in 32 bits by one instruction.

    Without it sums of two products are cut off at 16 bits: int8 is hardly faster than fp32, and
    its answers are others than those that were measured. Known on Linux alone.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return bool({"avx512_vnni", "avx_vnni"} & set(flags)) and _most() not in _WITHOUT_VNNI


def may_use_bf16() -> bool:
    """Whether oneDNN may use instructions for bfloat16, if the CPU has them."""
    return _most() not in _WITHOUT_BF16


def _most() -> str:
    """The name of the most that oneDNN may use; empty: everything."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
