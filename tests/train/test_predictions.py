"""Predictions: padding dropped, impressions in their order on disk."""

import torch

from torchrec_mm.train.predictions import PredictionCollector


def test_impressions_come_in_the_order_of_the_data_set_whatever_the_batches(worker):
    collector = PredictionCollector()
    nan = float("nan")
    collector.add(
        torch.tensor([[3.0, nan], [5.0, 6.0]]),
        torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        torch.tensor([[True, False], [True, True]]),
        torch.tensor([0, 2]),
    )
    collector.add(
        torch.tensor([[4.0, 4.5, 4.7]]),
        torch.tensor([[0.0, 1.0, 0.0]]),
        torch.tensor([[True, True, True]]),
        torch.tensor([1]),
    )
    predictions = collector.gather()
    assert predictions.rows.tolist() == [0, 1, 1, 1, 2, 2]
    assert predictions.logits.tolist() == torch.tensor([3, 4, 4.5, 4.7, 5, 6]).tolist()
    assert predictions.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert predictions.labels.dtype == "int8"
