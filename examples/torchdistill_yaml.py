"""fastnt's loss in torchdistill 1.1.5, chosen in its YAML; lift `CONFIG` and `register` from here.

    pip install --no-deps torchdistill==1.1.5 cython pyyaml
    python examples/torchdistill_yaml.py

It ends with checks: torchdistill's training gives what the same training by hand gives, bit for bit, with
one batch a step and with gradients accumulated over four.

torchdistill imports torchvision, whose wheel does not go with every build of torch; without its models
and data sets a stand-in serves.
"""

import copy
import logging
from typing import Any

import torch
import yaml
from stand_ins import standing_in
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

import fastnt

with standing_in("torchvision.datasets", "torchvision.models", "torchvision.transforms"):
    from torchdistill.core.distillation import DistillationBox
    from torchdistill.losses.registry import register_low_level_loss

register_low_level_loss(fastnt.NoisyL2Loss)

# No seed: torchdistill keeps its losses in a plain dict, where state_dict() does not find the step that a
# seeded loss counts. torch.manual_seed governs the noise instead. eval() does not reach the loss either.
CONFIG = """
num_epochs: 1
train_data_loader:
  dataset_id: train
  kwargs: {batch_size: 4, num_workers: 0}
teacher: {forward_proc: forward_batch_only, requires_grad: False}
student: {forward_proc: forward_batch_only}
optimizer: {key: SGD, grad_accum_step: 4, kwargs: {lr: 0.05}}
criterion:
  key: WeightedSumLoss
  kwargs:
    sub_terms:
      noisy_l2:
        criterion: {key: NoisyL2Loss, kwargs: {alpha: 0.5, sigma: 0.6}}
        criterion_wrapper:
          key: SimpleLossWrapper
          kwargs:
            input: {is_from_teacher: False, module_path: '.', io: output}
            target: {is_from_teacher: True, module_path: '.', io: output}
        weight: 1.0
"""


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return teacher.eval(), student


def train(teacher: nn.Module, student: nn.Module, data: Any, config: dict[str, Any]) -> None:
    cpu = torch.device("cpu")
    box = DistillationBox(teacher, student, {"train": data}, config, cpu, None, False, 1)
    torch.manual_seed(1)  # governs the noise
    box.pre_epoch_process(epoch=0)
    for images, labels, more in box.train_data_loader:
        box.post_forward_process(box.forward_process(images, labels, more))


def train_by_hand(
    teacher: nn.Module, student: nn.Module, data: Any, batch: int, accumulate: int
) -> None:
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    torch.manual_seed(1)
    for number, (images, _) in enumerate(DataLoader(data, batch), start=1):
        with torch.no_grad():
            logits = teacher(images)
        loss = fastnt.noisy_l2_loss(student(images), logits, alpha=0.5, sigma=0.6)
        (loss / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()


def main() -> None:
    logging.disable()
    teacher, student = networks()
    data = TensorDataset(torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
    for batch, accumulate in ((16, 1), (4, 4)):
        config = yaml.safe_load(CONFIG)
        config["train_data_loader"]["kwargs"]["batch_size"] = batch
        config["train_data_loader"]["sampler"] = {"class_or_func": SequentialSampler}
        config["optimizer"]["grad_accum_step"] = accumulate
        theirs, ours = copy.deepcopy(student), copy.deepcopy(student)
        train(copy.deepcopy(teacher), theirs, data, config)
        train_by_hand(teacher, ours, data, batch, accumulate)
        for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            assert torch.equal(one, other)
    print("torchdistill's training is the one by hand, accumulated or not")


if __name__ == "__main__":
    main()
