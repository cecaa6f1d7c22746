"""Bad input: the message names the argument, the rule and the value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm._backends import registry

MASK = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": [[1, 0]]}, TypeError, "target: must be a torch tensor, a numpy array or .* got list"),
        (
            {"target": torch.zeros(3, 4)},
            ValueError,
            r"target: must have at least 3 axes .* got shape \(3, 4\)",
        ),
        (
            {"target": torch.zeros(3, 4, 5, dtype=torch.complex64)},
            TypeError,
            "target: must hold .* got dtype torch.complex64",
        ),
        ({"target": np.zeros((3, 4, 5), object)}, TypeError, "target: .* got dtype object"),
        ({"target": np.zeros((3, 4, 5), np.longdouble)}, TypeError, "target: .* got dtype"),
        ({"target": torch.full((3, 4, 5), torch.nan)}, ValueError, "target: must not contain NaN"),
        (
            {"target": torch.full((3, 4, 5), 1.5), "classes": 2},
            ValueError,
            "target: .* whole numbers, got 1.5",
        ),
        (
            {"target": MASK.to_sparse()},
            TypeError,
            "target: must be a dense tensor, got layout torch.sparse_coo",
        ),
        ({"target": torch.zeros(3, 4, 5).to(torch.float8_e5m2)}, TypeError, "target: .* dtype torch.float8"),
        (
            {"target": np.ma.masked_array(MASK.numpy(), mask=True)},
            TypeError,
            "target: must not be a masked array",
        ),
        (
            {"target": MASK.to(torch.uint64), "classes": [2**63]},
            ValueError,
            "classes: .* got 9223372036854775808",
        ),
        ({"spatial_dims": 4}, ValueError, "spatial_dims: must be 2 or 3, got 4"),
        ({"spatial_dims": np.int64(1)}, ValueError, "spatial_dims: must be 2 or 3, got .*1"),
        ({"spatial_dims": 3.0}, TypeError, "spatial_dims: must be an integer, got 3.0"),
        ({"spatial_dims": True}, TypeError, "spatial_dims: must be an integer, got True"),
        ({"spatial_dims": np.bool_(True)}, TypeError, "spatial_dims: must be an integer, got .*True"),
        ({"spatial_dims": None}, TypeError, "spatial_dims: must be an integer, got None"),
        ({"spacing": -1.0}, ValueError, "spacing: must be positive and finite, got -1.0"),
        ({"spacing": 0}, ValueError, "spacing: must be positive and finite, got 0.0"),
        ({"spacing": (1, 1, float("inf"))}, ValueError, "spacing: must be positive and finite, got inf"),
        ({"spacing": float("nan")}, ValueError, "spacing: must be positive and finite, got nan"),
        ({"max_distance": 10**400}, ValueError, "max_distance: must be at most 1e\\+18, got 1000"),
        ({"spacing": 1e20}, ValueError, r"spacing: must lie between 1e-12 and 1e\+12, got 1e\+20"),
        ({"spacing": 1e-20}, ValueError, r"spacing: must lie between 1e-12 and 1e\+12, got 1e-20"),
        (
            {"spacing": (1, 2e5, 1e-5)},
            ValueError,
            r"spacing: axes may differ by a factor of 1e\+09 at most, got \[1.0, 2",
        ),
        ({"spacing": (1, 1)}, ValueError, r"spacing: must be a number, 3 numbers .* got shape \(2,\)"),
        ({"spacing": np.ones((3, 3))}, ValueError, r"spacing: .* leading axes \(2,\); got shape \(3, 3\)"),
        ({"spacing": "fine"}, TypeError, "spacing: must be a number or numbers, got 'fine'"),
        ({"spacing": [[1, 1, 1], [1]]}, TypeError, "spacing: must be a number or rows of equal length"),
        ({"spacing": None}, TypeError, "spacing: .* got None"),
        ({"spacing": torch.ones(3, dtype=torch.bool)}, TypeError, "spacing: must hold numbers, got dtype"),
        ({"spacing": np.ones(3, dtype=bool)}, TypeError, "spacing: must hold numbers, got dtype bool"),
        ({"spacing": np.array(True)}, TypeError, "spacing: must hold numbers, got dtype bool"),
        ({"spacing": True}, TypeError, "spacing: must be a number or numbers, got True"),
        ({"spacing": (1.0, True, 1.0)}, TypeError, r"spacing: must be .* got \(1.0, True, 1.0\)"),
        ({"spacing": [[1.0, 1.0, 1.0], [1.0, True, 1.0]]}, TypeError, "spacing: must be .* True"),
        ({"spacing": [torch.ones(3), torch.ones(2)]}, TypeError, "spacing: .* rows of equal length"),
        ({"spacing": [torch.ones(3), -torch.ones(3)]}, ValueError, "spacing: must be positive .* got -1.0"),
        ({"spacing": np.array([1, 1j, 1])}, TypeError, "spacing: must hold numbers, got dtype complex128"),
        (
            {"spacing": torch.ones(3, device="meta")},
            ValueError,
            r"spacing: must be on the CPU .* spacing.cpu\(\)",
        ),
        ({"classes": 0}, ValueError, "classes: must be at least 1, got 0"),
        ({"classes": 2**40}, ValueError, "classes: a count must be at most 16777216, got 1099511627776"),
        (
            {"target": MASK.long(), "classes": 10**400},
            ValueError,
            "classes: a count must be at most 16777216, got 1000",
        ),
        ({"classes": []}, ValueError, "classes: must name at least one"),
        ({"classes": [1, 2, 1]}, ValueError, r"classes: must not name a label value twice, got \[1, 2, 1\]"),
        ({"classes": [1, 256]}, ValueError, r"classes: .* dtype torch.uint8 \(0 to 255\), got 256"),
        ({"classes": [-1]}, ValueError, "classes: .* got -1"),
        ({"classes": "12"}, TypeError, "classes: must be None, a count or a sequence .* got str"),
        ({"classes": [1.5]}, TypeError, "classes: must hold integers, got 1.5"),
        ({"classes": True}, TypeError, "classes: .* got bool"),
        ({"classes": [True]}, TypeError, "classes: must hold integers, got True"),
        ({"classes": np.array([True, False])}, TypeError, "classes: must hold integers, got .*True"),
        ({"classes": torch.tensor([1.0])}, TypeError, r"classes: must hold integers, got tensor\(1"),
        ({"classes": torch.tensor(True)}, TypeError, "classes: .* got Tensor"),
        ({"classes": np.eye(2, dtype=int)}, TypeError, "classes: .* got ndarray"),
        ({"classes": torch.zeros(2, device="meta")}, ValueError, r"classes: must be on the CPU .*tolist\(\)"),
        ({"convention": "signed"}, ValueError, "convention: must be one of 'kervadec', .* got 'signed'"),
        ({"empty": "nan"}, ValueError, "empty: must be one of 'inf', 'zero', 'max', 'raise'; got 'nan'"),
        ({"max_distance": 0}, ValueError, "max_distance: must be positive and finite, got 0"),
        ({"max_distance": float("inf")}, ValueError, "max_distance: must be positive and finite, got inf"),
        ({"max_distance": float("nan")}, ValueError, "max_distance: must be positive and finite, got nan"),
        ({"max_distance": "4"}, TypeError, "max_distance: must be None or a number, got str"),
        ({"ignore_index": MASK}, TypeError, r"ignore_index: must be an integer, got Tensor of shape \(2, 3,"),
        (
            {"black_border": MASK.numpy()},
            TypeError,
            "black_border: must be True or False, got ndarray of shape",
        ),
        ({"convention": np.array(["plain", "midline"])}, ValueError, "convention: .* got ndarray of shape"),
        ({"dtype": torch.ones(2, 2)}, ValueError, r"dtype: must be .* got Tensor of shape \(2, 2\)"),
        ({"dtype": torch.int32}, ValueError, "dtype: must be float32, .* got torch.int32"),
        ({"dtype": "int8"}, ValueError, "dtype: must be float32, .* got 'int8'"),
        ({"dtype": "no"}, ValueError, "dtype: must be float32, .* got 'no'"),
        ({"backend": None}, TypeError, "backend: must be 'auto' or the name of a backend, got None"),
        ({"backend": torch.device("cpu")}, TypeError, "backend: must be .* got device"),
        ({"backend": "cuda"}, ValueError, "backend: must be 'auto' or one of 'triton', .* got 'cuda'"),
    ],
)
def test_signed_distance(arguments, error, message) -> None:
    arguments = {"target": MASK, **arguments}
    with pytest.raises(error, match=message) as raised:
        fastsdm.signed_distance(arguments.pop("target"), **arguments)
    assert "\n" not in str(raised.value)


def test_bfloat16_has_no_numpy_counterpart() -> None:
    with pytest.raises(ValueError, match="dtype: numpy has no bfloat16"):
        fastsdm.signed_distance(MASK.numpy(), dtype=torch.bfloat16)


def test_distance_transform_names_its_own_argument() -> None:
    with pytest.raises(ValueError, match=r"mask: must have at least 3 axes .* got shape \(3,\)"):
        fastsdm.distance_transform(torch.zeros(3))
    with pytest.raises(TypeError, match="mask: must be a torch tensor"):
        fastsdm.distance_transform("mask")


def test_use_backend_refuses_unknown_names() -> None:
    with pytest.raises(ValueError, match="backend: must be 'auto' or one of"), fastsdm.use_backend("fast"):
        pass


def test_a_named_backend_never_falls_back() -> None:
    with pytest.raises(fastsdm.BackendUnavailableError, match="backend 'cucim' is unavailable: "):
        fastsdm.signed_distance(MASK, backend="cucim")
    with (
        pytest.raises(fastsdm.BackendUnavailableError, match=r"backend 'native' is unavailable: .*meta"),
        fastsdm.use_backend("native"),
    ):
        registry.select("auto", torch.device("meta"))
