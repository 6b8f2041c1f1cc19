"""Size and speed of a study's networks: parameters, multiplies, bytes, measured latencies."""

import statistics
import time

import torch

from fastnt.environment import describe_machine
from fastnt.experiments.lab import Lab
from fastnt.experiments.store import Store, own_name, to_json
from fastnt.training.model import Model

_REPEATS = 20


def measure_networks(lab: Lab, store: Store) -> None:
    """Measure the teachers and students that were not measured yet, and write a row for each."""
    course, classes = lab.course, len(lab.dataset.classes)
    shape = to_json(list(lab.dataset.shape))
    measured = "SELECT * FROM networks WHERE shape = ? AND classes = ?"
    known = {row["network"] for row in store.rows(measured, shape, classes)}
    models = {lab.teacher(name).notation: lab.teacher(name) for name in lab.study.teacher_recipes()}
    for point in lab.study.points():
        network = point.recipe.student_network
        if network not in models and network not in known:
            models[network] = course.new_student(point.recipe)
    rows = []
    for notation, model in models.items():
        name = own_name(notation, lab.setup.folder.name) if model.is_own else notation
        if name not in known:
            rows.append(
                {
                    "network": name,
                    "shape": shape,
                    "classes": classes,
                    "parameters": model.parameter_count,
                    "multiplies": model.multiply_count,
                    "bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
                    "latency_1": latency(model, 1),
                    "latency_256": latency(model, 256),
                    "machine": to_json(describe_machine() | {"device": str(course.compute.device)}),
                }
            )
    store.put_all("networks", rows)


@torch.inference_mode()
def latency(model: Model, batch: int) -> float | None:
    """Return the median of the seconds of a forward pass over ``batch`` images; None where it fails."""
    device = next(model.parameters()).device
    images = torch.zeros((batch, *model.shape), dtype=torch.uint8, device=device)
    model.eval()
    seconds = []
    for _ in range(_REPEATS + 2):
        start = time.perf_counter()
        try:
            model(images)
        except Exception:  # as a user's network may for a single image
            return None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])
