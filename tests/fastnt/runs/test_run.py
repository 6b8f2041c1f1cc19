"""A run end to end on the embedded digits: its folder, its repeatability, its reuse."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fastnt.config import Recipe
from fastnt.data.loaders import LoaderKind
from fastnt.data.prepare import prepare
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.files import cache_dir
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.runs.folder import RunFolder
from fastnt.runs.networks import evaluate_run
from fastnt.runs.resume import new_run
from fastnt.runs.run import Run
from fastnt.statistics import mcnemar
from fastnt.training.compute import choose_compute
from fastnt.training.model import Model, load_model

CPU = torch.device("cpu")
FILES = {
    "README.md",
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "teacher.safetensors",
    "clean.safetensors",
    "noisy.safetensors",
    "predictions.safetensors",
    "timings.json",
    "summary.json",
}


def _recipe(**values: Any) -> Recipe:
    small = {"epochs": 2, "teacher_epochs": 2, "train_samples": 300}
    return load_recipe("digits", None, small | values)


def _run(folder: Path, recipe: Recipe, name: str = "a") -> tuple[dict[str, Any], Path]:
    run = Run(new_run(recipe, folder, name), choose_compute(CPU), Silent())
    return run.execute(), run.folder.path


def test_the_folder_holds_what_the_run_made(tmp_path: Path) -> None:
    summary, folder = _run(tmp_path, _recipe(seed=11))
    assert {path.name for path in folder.iterdir()} == FILES
    assert RunFolder(folder).summary() == summary
    assert load_recipe(None, folder / "config.json") == _recipe(seed=11)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["phase"], r["epoch"]) for r in records] == [
        (phase, epoch) for phase in ("teacher", "clean", "noisy") for epoch in (1, 2)
    ]
    timings = json.loads((folder / "timings.json").read_text())
    assert {f"{phase}_images_per_second" for phase in ("teacher", "clean", "noisy")} <= set(timings)


def test_the_summary_speaks_of_errors_sizes_and_noise_but_not_of_times(tmp_path: Path) -> None:
    summary, _ = _run(tmp_path, _recipe())
    assert list(summary) == [
        "dataset",
        "official",
        "seed",
        "teacher",
        "clean",
        "noisy",
        "relative_improvement",
        "mcnemar_p",
    ]
    assert (summary["dataset"], summary["official"], summary["seed"]) == ("digits", True, 0)
    assert (summary["noisy"]["alpha"], summary["noisy"]["sigma"]) == (0.5, 0.6)
    assert summary["clean"]["multiplies"] == summary["noisy"]["multiplies"]
    assert 0 <= summary["teacher"]["test_error"] <= 1
    clean, noisy = summary["clean"]["test_error"], summary["noisy"]["test_error"]
    assert summary["relative_improvement"] == pytest.approx((clean - noisy) / clean)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    first, a = _run(tmp_path, _recipe(seed=1), "a")
    (cache_dir() / "teachers").rename(cache_dir() / "teachers.away")  # train it again
    (cache_dir() / "logits").rename(cache_dir() / "logits.away")
    second, b = _run(tmp_path, _recipe(seed=1), "b")
    assert first == second
    for name in ("teacher", "clean", "noisy"):
        weights = f"{name}.safetensors"
        assert (a / weights).read_bytes() == (b / weights).read_bytes()
    _, c = _run(tmp_path, _recipe(seed=2), "c")
    assert (a / "clean.safetensors").read_bytes() != (c / "clean.safetensors").read_bytes()


def test_a_teacher_trained_before_is_used_again_with_the_same_result(tmp_path: Path) -> None:
    dropout = {"seed": 3, "student_network": "FC32-D0.5-FC10"}
    first, a = _run(tmp_path, _recipe(**dropout), "a")
    second, b = _run(tmp_path, _recipe(**dropout), "b")
    assert first == second
    assert (a / "clean.safetensors").read_bytes() == (b / "clean.safetensors").read_bytes()
    phases = [json.loads(x)["phase"] for x in (b / "metrics.jsonl").read_text().splitlines()]
    assert phases == ["clean", "clean", "noisy", "noisy"]
    given, _ = _run(tmp_path, _recipe(**dropout, teacher=str(a / "teacher.safetensors")), "c")
    assert given == first


def test_without_noise_the_two_students_are_one(tmp_path: Path) -> None:
    dropout = {"alpha": 0, "student_network": "FC32-D0.5-FC10"}
    for name, values in {"alpha": {"alpha": 0}, "sigma": {"sigma": 0}, "d": dropout}.items():
        _, folder = _run(tmp_path, _recipe(**values), name)
        noisy = (folder / "noisy.safetensors").read_bytes()
        assert noisy == (folder / "clean.safetensors").read_bytes()


@pytest.mark.parametrize(
    "values",
    [{"frozen": True}, {"noise": "shared"}, {"perturb": "student"}, {"sigma": "0.01:1"}],
    ids=str,
)
def test_every_kind_of_noise_trains_another_student(tmp_path: Path, values: Any) -> None:
    _, plain = _run(tmp_path, _recipe(), "plain")
    _, other = _run(tmp_path, _recipe(**values), "other")
    name = "noisy.safetensors"
    assert (plain / name).read_bytes() != (other / name).read_bytes()
    assert (plain / "clean.safetensors").read_bytes() == (other / "clean.safetensors").read_bytes()


def test_both_loaders_train_the_same_students(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    recipe = _recipe(mirror=True, preprocess="pixel_mean", epochs=1, teacher_epochs=1)
    loaders: tuple[LoaderKind, LoaderKind] = ("resident", "ffcv")
    a, b = (
        Run(new_run(recipe, tmp_path, kind), choose_compute(CPU, loader=kind), Silent())
        for kind in loaders
    )
    assert a.execute() == b.execute()
    for name in ("clean", "noisy"):
        assert a.folder.network(name).read_bytes() == b.folder.network(name).read_bytes()


def test_errors_fall_and_the_students_learn(tmp_path: Path) -> None:
    recipe = _recipe(train_samples=0, epochs=12, teacher_epochs=6)
    summary, folder = _run(tmp_path, recipe)
    # Chance is 90 %.
    assert summary["teacher"]["test_error"] < 0.2
    assert summary["clean"]["test_error"] < 0.3
    assert summary["noisy"]["test_error"] < 0.3
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for phase in ("teacher", "clean", "noisy"):
        losses = [r["validation_loss"] for r in records if r["phase"] == phase]
        assert losses[-1] < losses[0] / 2


def test_the_predictions_are_those_of_the_saved_networks(tmp_path: Path) -> None:
    summary, folder = _run(tmp_path, _recipe())
    found = RunFolder(folder).predictions()
    assert found is not None
    images, labels = prepare("digits").test.arrays()
    assert found.labels.dtype == np.uint8
    assert (found.labels == labels).all()
    assert set(found.networks) == {"teacher", "clean", "noisy"}
    for name, classes in found.networks.items():
        with torch.inference_mode():
            again = load_model(folder / f"{name}.safetensors")(torch.from_numpy(images)).argmax(1)
        assert (classes == again.numpy()).all()
        assert summary[name]["test_wrong"] == found.wrong(name).sum()
        assert summary[name]["test_images"] == len(labels) == 360
        assert summary[name]["test_error"] == found.wrong(name).mean()
    assert summary["mcnemar_p"] == mcnemar(found.wrong("clean"), found.wrong("noisy"))


def test_in_float32_the_held_out_errors_are_those_of_the_last_epochs(tmp_path: Path) -> None:
    plan = new_run(_recipe(), tmp_path, "a")
    summary = Run(plan, choose_compute(CPU, amp=False), Silent()).execute()
    for record in plan.folder.metrics.read():
        if record.epoch == 2:
            assert summary[record.phase]["held_out_error"] == record.validation_error


def test_a_run_is_evaluated_again_with_the_same_errors(tmp_path: Path) -> None:
    summary, folder = _run(tmp_path, _recipe())
    errors = evaluate_run(folder, None, CPU)
    assert errors == {p: summary[p]["test_error"] for p in ("teacher", "clean", "noisy")}


def test_several_teachers_are_named_saved_and_evaluated_again(tmp_path: Path) -> None:
    files = []
    for seed in (1, 2):
        _, folder = _run(tmp_path, _recipe(seed=seed, epochs=1), str(seed))
        files.append(str(folder / "teacher.safetensors"))
    recipe = _recipe(teacher=files, combine="geometric")
    summary, folder = _run(tmp_path, recipe, "both")
    assert {p.name for p in folder.iterdir()} == FILES - {"teacher.safetensors"} | {
        "teacher-1.safetensors",
        "teacher-2.safetensors",
    }
    for number, file in enumerate(files, start=1):
        assert (folder / f"teacher-{number}.safetensors").read_bytes() == Path(file).read_bytes()
    one, two = summary["teachers"]
    assert summary["teacher"]["parameters"] == one["parameters"] + two["parameters"]
    assert summary["teacher"]["combine"] == "geometric"
    assert 0 < summary["teacher"]["signs_agree"] < 1
    assert load_recipe(None, folder / "config.json") == recipe
    assert evaluate_run(folder, None, CPU) == {
        "teacher-1": one["test_error"],
        "teacher-2": two["test_error"],
        **{phase: summary[phase]["test_error"] for phase in ("teacher", "clean", "noisy")},
    }


def test_teachers_with_their_own_noise_leave_the_clean_student_as_it_is(tmp_path: Path) -> None:
    _, first = _run(tmp_path, _recipe(epochs=1), "1")
    file = str(first / "teacher.safetensors")
    _, same = _run(tmp_path, _recipe(teacher=[file, file]), "same")
    summary, own = _run(tmp_path, _recipe(teacher=[file, file], teacher_alphas="0,0.5"), "own")
    assert summary["noisy"]["alpha"] == [0, 0.5]
    name = "clean.safetensors"
    assert (own / name).read_bytes() == (same / name).read_bytes()
    name = "noisy.safetensors"
    assert (own / name).read_bytes() != (same / name).read_bytes()


def test_with_random_crops_the_students_learn_from_a_live_teacher(tmp_path: Path) -> None:
    values = {"crop": 1, "teacher_epochs": 6, "epochs": 8, "train_samples": 0}
    summary, _ = _run(tmp_path, _recipe(**values))
    assert not _tables()
    # Chance is 90 %.
    for network in ("teacher", "clean", "noisy"):
        assert summary[network]["test_error"] < 0.5


def test_logits_of_another_teacher_are_refused(tmp_path: Path) -> None:
    _run(tmp_path, _recipe(seed=21), "a")
    table_of_a = next(iter(_tables()))
    saved = table_of_a.read_bytes()
    before = _tables()
    _run(tmp_path, _recipe(seed=22), "b")
    (table_of_b,) = _tables() - before
    table_of_b.write_bytes(saved)
    with pytest.raises(UserError, match="is of another teacher"):
        _run(tmp_path, _recipe(seed=22), "c")
    table_of_b.write_bytes(saved[: len(saved) // 2])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        _run(tmp_path, _recipe(seed=22), "d")


def _tables() -> set[Path]:
    return set((cache_dir() / "logits").glob("*.safetensors"))


def test_stored_logits_are_the_teachers_own(tmp_path: Path) -> None:
    _, folder = _run(tmp_path, _recipe(seed=31, mirror=True))
    (path,) = _tables()
    table = safetensors.torch.load_file(path)["train"]
    teacher = load_model(folder / "teacher.safetensors")
    images = torch.from_numpy(prepare("digits").train.arrays()[0][:300])
    with torch.inference_mode():
        expected = torch.cat([teacher(images), teacher(images.flip(2))])
    assert table.shape == (600, 10)
    torch.testing.assert_close(table, expected, rtol=1e-4, atol=1e-4)


def test_a_folder_with_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds other files"):
        _run(tmp_path, _recipe())
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["notes.txt"]


def test_two_runs_of_the_same_second_have_two_folders(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        runs.append(new_run(_recipe(), tmp_path).folder.path)
        runs[-1].mkdir(parents=True)
    assert runs[0] != runs[1]


def test_a_training_that_diverges_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"training of teacher diverged in epoch 1.*lower learning rate"
    ):
        _run(tmp_path, _recipe(teacher_lr=1e30))


def test_noise_beyond_all_numbers_is_what_is_to_be_mended(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"noisy diverged in epoch 1, batch 1: .* less noise"
    ) as error:
        _run(tmp_path, _recipe(sigma=1e30))
    assert "learning rate" not in str(error.value)


def test_a_run_is_not_evaluated_on_other_data(tmp_path: Path, mnist_folder: Path) -> None:
    _, folder = _run(tmp_path, _recipe())
    environment = folder / "environment.json"
    other = json.loads(environment.read_text()) | {"source_sha256": "0" * 64}
    environment.write_text(json.dumps(other))
    with pytest.raises(UserError, match="other files of digits"):
        evaluate_run(folder, None, CPU)


def test_a_teacher_of_other_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    Model("FC10", Preprocess("none", (28, 28, 1)), 10).save(path)
    with pytest.raises(UserError, match="give one of this data set"):
        _run(tmp_path / "runs", replace(_recipe(), teacher=str(path)))
    assert not (tmp_path / "runs").exists()


def test_a_name_serves_again_after_a_kill_before_the_run_was_begun(tmp_path: Path) -> None:
    left = tmp_path / "a" / ".config.json.00000000-1.x.part"
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))  # or another process might be writing it
    left.with_name("environment.json").write_text("{}")
    folder = RunFolder(tmp_path / "a")
    folder.refuse_used()
    with folder.held():
        assert not left.exists()
    left.with_name("mine.txt").touch()
    with pytest.raises(UserError, match="already holds other files"):
        folder.refuse_used()
