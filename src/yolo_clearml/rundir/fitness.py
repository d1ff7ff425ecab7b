"""Ultralytics' measure of a good epoch, from the metrics of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_PRECISIONS = (  # of boxes, masks and poses, and of YOLOv5; at one overlap and over many
    *((f"metrics/mAP50{of}", f"metrics/mAP50-95{of}") for of in ("(B)", "(M)", "(P)")),
    ("metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
)

# what the fitness of semantic segmentation is, from 8.4.52 on, and that of depth estimation, from 8.4.104 on
# (`SemanticMetrics.fitness` and `DepthMetrics.fitness` in ultralytics/utils/metrics.py)
_ALONE = ("metrics/mIoU", "metrics/delta1")

MIXED = (0.1, 0.9)  # weights of mAP50 and mAP50-95 to 8.3.197, and of YOLOv5
STRICT = (0.0, 1.0)  # mAP50-95 alone, from 8.3.198 on
EVER = (MIXED, STRICT)


def fitness(
    metrics: Mapping[str, float], weights: tuple[float, float], of_classes: tuple[float, float] = (0.5, 0.5)
) -> float:
    """Weigh mAP50 and mAP50-95, of a classification top1 and top5; -inf where the metrics are not there.

    That is also where one of them is not finite. Of semantic segmentation it is the mean IoU, of depth
    estimation delta1.
    """
    for name in _ALONE:
        if name in metrics:
            return metrics[name] if math.isfinite(metrics[name]) else -math.inf
    top = [metrics[k] for k in ("metrics/accuracy_top1", "metrics/accuracy_top5") if k in metrics]
    if len(top) == 2:
        mean = sum(weight * value for weight, value in zip(of_classes, top, strict=True))
        return mean if math.isfinite(mean) else -math.inf
    parts: Sequence[tuple[float, float]] = [
        (metrics[loose], metrics[strict])
        for loose, strict in _PRECISIONS
        if loose in metrics and strict in metrics
    ]
    total = sum(weights[0] * loose + weights[1] * strict for loose, strict in parts)
    return total if parts and math.isfinite(total) else -math.inf
