"""What stands behind the numbers of a benchmark: machine, libraries, commit, threads, how the kernels are compiled."""

from __future__ import annotations

from typing import Any


def kernel_facts() -> dict[str, Any]:
    """How the kernels of this process are configured."""
    import numba

    from rnnbench.kernels.cpu import compiling, flush, simd

    return {
        "threads": numba.get_num_threads(),
        "register_bits": 8 * simd.register_bytes(),
        "tile": f"{simd.TILE_ROWS} rows x {simd.panel_vectors()} vectors",
        "explicit_vectors": simd.EXPLICIT,
        "subnormals": "flushed" if flush.CAN_FLUSH else "kept",
        "sources": compiling.source_digest(),
        "cpu_name": numba.config.CPU_NAME or "host",
        "cpu_features": numba.config.CPU_FEATURES or "host",
    }


def facts() -> dict[str, Any]:
    """The fingerprint of a run (processor, memory, system, libraries, git commit, load) and the kernels."""
    from rnnbench.machine.fingerprint import fingerprint

    return {**fingerprint(), "kernels": kernel_facts()}
