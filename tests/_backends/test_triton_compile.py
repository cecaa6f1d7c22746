"""Every kernel variant compiled ahead of time for NVIDIA and AMD, which takes no GPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastsdm._backends import triton_passes
from tests._backends import compiled_triton as compiled

pytest.importorskip("triton")

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "triton.md"
#: A thread may have 255 registers on NVIDIA; beyond 128 fewer than 16 programs fit a multiprocessor.
MOST_REGISTERS = 128


@pytest.mark.slow
@pytest.mark.parametrize("target", compiled.TARGETS)
def test_no_variant_spills(target: str) -> None:
    used = {
        str(variant): compiled.usage(variant, target)
        for variant in compiled.variants(compiled.TARGETS[target].tiles)
    }
    assert used
    assert {name: usage.spills for name, usage in used.items() if usage.spills} == {}
    assert {name: usage.registers for name, usage in used.items() if usage.registers > MOST_REGISTERS} == {}


@pytest.mark.slow
def test_the_documented_registers_are_the_compilers() -> None:
    import triton  # noqa: PLC0415

    document = DOCUMENT.read_text()
    if f"Triton {triton.__version__}," not in document:
        pytest.skip(f"docs/triton.md notes another version's registers than {triton.__version__}'s")
    assert compiled.report() in document


def test_lanes_of_the_scan_wait_before_they_read_each_others_voxels() -> None:
    """Which neither interpreter nor contract suite would notice."""
    (scan,) = (each for each in compiled.variants(triton_passes.NVIDIA) if str(each) == "scan u8 to fp16")
    code = compiled.assembly(scan, "sm_90")["ptx"]
    assert code.count("bar.sync") == 1
    stores, loads = code.split("bar.sync")
    assert "st.global" in stores
    assert "ld.global" in loads


@pytest.mark.parametrize("name", ["fp16 to fp32 and places", "fp16 to indices"])
def test_places_are_stored_after_the_rows_of_all_lanes(name: str) -> None:
    """A surplus lane computes the last column again, and must not write its row over the place there."""
    (search,) = (each for each in compiled.variants(triton_passes.NVIDIA) if str(each) == f"nearest {name}")
    code = compiled.assembly(search, "sm_90")["ptx"]
    assert code.count("bar.sync") == 1
    rows, places = code.split("bar.sync")
    assert "st.global" in rows
    assert "st.global" in places


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_a_half_precision_map_is_rounded_to_nearest(arch: str) -> None:
    """Which the interpreter does not do for bfloat16."""
    for dtype in ("bf16", "fp16"):
        (search,) = (
            each
            for each in compiled.variants(triton_passes.NVIDIA)
            if str(each) == f"search fp32 squared to a map of {dtype}"
        )
        instruction = f"cvt.rn.{dtype.replace('fp', 'f')}"
        assert re.search(rf"{instruction}(x2)?\.f32", compiled.assembly(search, arch)["ptx"])


def test_a_spill_is_seen() -> None:
    assert compiled._amd_usage(".vgpr_count: 9\n.vgpr_spill_count: 2\n.sgpr_spill_count: 3\n").spills == 5
