"""The model files of a run beside best.pt: what each is, by its name alone. Pure.

Read off the sources of 8.4: ``engine/trainer.py`` (``last.pt``, and ``epoch<N>.pt`` of ``save_period``,
with N from zero) and ``engine/exporter.py`` (``export_formats``); YOLOv5 names them alike.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..events import FileStamp, ModelFile

# What an export's name ends with, and its framework: in ClearML's word where it has one (clearml/model.py,
# Framework), else in that of Ultralytics. Longer endings before shorter ones that they end with.
_FRAMEWORKS = {
    ".torchscript": "TorchScript",
    "_qnn.onnx": "QNN",
    ".onnx": "ONNX",
    "_openvino_model": "OpenVINO",
    ".engine": "TensorRT",
    ".mlpackage": "CoreML",
    ".mlmodel": "CoreML",
    ".aimodel": "Core AI",
    "_saved_model": "TensorFlow",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow_Lite",
    "_web_model": "TensorFlow_js",
    "_paddle_model": "PaddlePaddle",
    ".mnn": "MNN",
    "_ncnn_model": "NCNN",
    "_imx_model": "IMX",
    "_rknn_model": "RKNN",
    "_executorch_model": "ExecuTorch",
    "_axelera_model": "Axelera",
    "_deepx_model": "DEEPX",
    "_hailo_model": "Hailo",
    "_ascend_model": "Ascend",
    "_xilinx_model": "Xilinx",
}
_CHECKPOINT = ".pt"
_PYTORCH = "PyTorch"
_PERIODIC = re.compile(r"epoch([0-9]{1,7})\.pt")
_EXPORT = re.compile(  # best.onnx, best_int8.onnx, best-fp16.tflite, best_int8_openvino_model
    r"(?:best|last)(?:[-_](?:u?int8|fp16|fp32|float16|float32|edgetpu|full_integer_quant))*"
    rf"(?P<ending>{'|'.join(map(re.escape, _FRAMEWORKS))})"
)


def model_file(name: str) -> ModelFile | None:
    """Give which of the models of a run a file or folder is, by its name within the run; None: it is none."""
    folder, _, last = name.rpartition("/")
    if folder != "weights":
        return None
    if last in ("best.pt", "last.pt"):
        return ModelFile(PurePosixPath(last).stem)
    if _PERIODIC.fullmatch(last):
        return ModelFile.PERIODIC
    return ModelFile.EXPORTS if _EXPORT.fullmatch(last) else None


def epoch_of(name: str) -> int | None:
    """Give the zero-based epoch of a checkpoint of ``save_period``; None of other models."""
    match = _PERIODIC.fullmatch(PurePosixPath(name).name)
    return int(match[1]) if match else None


def framework_of(name: str) -> str:
    """Give the framework that a model is for, as ClearML names it."""
    match = _EXPORT.fullmatch(PurePosixPath(name).name)
    return _FRAMEWORKS[match["ending"]] if match else _PYTORCH


def link_of(name: str) -> str:
    """Give the name under which a task shows a model: best, last, epoch10, best-onnx, best_saved_model.

    It has no dot, for ClearML's importer of offline sessions takes what is before a dot.
    """
    return PurePosixPath(name).name.removesuffix(_CHECKPOINT).replace(".", "-")


def stored_name(stamp: FileStamp) -> str:
    """Give what a model's file is called in a storage; a folder is a zip there."""
    name = PurePosixPath(stamp.name).name
    return f"{name}.zip" if stamp.members else name
