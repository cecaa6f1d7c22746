"""nnU-Net trainers as a user's own: ours, made small enough for a test."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

import torch

from fastsdm.integrations.nnunet import nnUNetTrainerBoundary, nnUNetTrainerHausdorff


class _Tiny:
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  # nnU-Net's own default
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)  # type: ignore[call-arg]
        self.num_epochs, self.save_every = 4, 1
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        small = deepcopy(configuration_manager)
        arguments = small.configuration["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [4] * len(arguments["features_per_stage"])
        arguments["n_conv_per_stage"] = [1] * len(arguments["n_conv_per_stage"])
        return nnUNetTrainerBoundary.build_network_architecture(
            plans_manager, small, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def on_train_epoch_start(self) -> None:
        if str(self.current_epoch) == os.environ.get("STOP_AT_EPOCH"):
            raise KeyboardInterrupt
        super().on_train_epoch_start()


class TinyBoundary(_Tiny, nnUNetTrainerBoundary):
    pass


class TinyBoundaryInWorkers(TinyBoundary):
    maps_in_workers = True


class TinyHausdorff(_Tiny, nnUNetTrainerHausdorff):
    pass
