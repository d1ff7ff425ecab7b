"""The digest of the points of an epoch, as it is in ledgers."""

from __future__ import annotations

import hashlib
import json

import pytest

from yolo_clearml.events import Points, Report

CURVES = (("train", 'box "loss"'), ("métrics", "mAP\ud800\\\n"), ("lr", "pg0"), ("lr", "pg1"), ("val", "x"))
VALUES = (-0.0, 1e22, 1.5e-07, 0.1 + 0.2, 12345678.0)


@pytest.mark.parametrize("count", [1, 5])
def test_points_keep_the_digest_that_ledgers_have(count: int) -> None:
    """Another one for what was delivered would send all of it again."""
    points = Points(CURVES[:count], VALUES[:count], 4999, 1_700_000_000_000)
    plain = ["Points", points.curves, points.values, points.iteration]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    expected = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    assert Report("epoch/4999", points).digest == expected


def test_the_digest_of_an_epoch_is_pinned() -> None:
    """Pinned, so that the text and what it is compared with do not change together."""
    points = Points((("train", "box_loss"), ("lr", "pg0")), (0.75, 1e-05), 2, 0)
    assert Report("epoch/2", points).digest == "ef9d2fc70e9a9d24"
