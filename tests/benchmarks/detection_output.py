"""A quantized network with OpenVINO's own postprocessing, its operation DetectionOutput, in one graph."""

import torch
from torch import Tensor

from model.boxes import cxcywh_to_xyxy
from model.default_boxes import default_boxes
from model.openvino_network import read_quantized
from model.package import ModelPackage
from model.postprocess import Detections

VARIANCES = (0.1, 0.1, 0.2, 0.2)


class DetectionOutput:
    """A detector as `model.detector.Detector`, without our postprocessing."""

    def __init__(self, package: ModelPackage) -> None:
        import openvino

        ops, model, thresholds = openvino.opset13, read_quantized(package), package.record.thresholds
        offsets, logits = (output.get_node().input_value(0) for output in model.outputs)
        flat = ops.constant([0, -1])
        boxes = cxcywh_to_xyxy(default_boxes(package.record.architecture)).reshape(1, 1, -1)
        variances = torch.tensor(VARIANCES).repeat(boxes.shape[2] // 4).reshape(1, 1, -1)
        found = openvino.opset8.detection_output(
            ops.reshape(offsets, flat, special_zero=True),
            ops.reshape(ops.softmax(logits, 2), flat, special_zero=True),
            ops.constant(torch.cat((boxes, variances), dim=1).numpy()),
            {
                "background_label_id": 0, "top_k": thresholds.topk_candidates, "keep_top_k": [thresholds.detections_per_img],
                "code_type": "caffe.PriorBoxParameter.CENTER_SIZE", "nms_threshold": thresholds.nms_thresh,
                "confidence_threshold": thresholds.score_thresh, "share_location": True, "normalized": True,
                "clip_after_nms": True,
            },
        )  # fmt: skip
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        graph = openvino.Model([found], model.get_parameters(), "own")
        self._request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def __call__(self, images: Tensor, sizes_px: Tensor) -> list[Detections]:
        """See `Detector`."""
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        rows = torch.from_numpy(self._request.infer({0: pixels}, share_inputs=True, share_outputs=True)[0])[0, 0]
        ends = (rows[:, 0] < 0).nonzero()
        rows = (
            rows[: int(ends[0])] if len(ends) else rows
        )  # What stands behind the first image -1 is left from other calls.
        parts = rows.split(rows[:, 0].long().bincount(minlength=len(images)).tolist())
        return [
            Detections(part[:, 3:] * size.repeat(2), part[:, 2].clone(), part[:, 1].long())
            for part, size in zip(parts, sizes_px, strict=True)
        ]
