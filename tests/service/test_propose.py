"""``activelr train PATH``: what data are taken for, and the job that is written for them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from activelr_service.config import read_job
from activelr_service.errors import CommandError
from activelr_service.service.prepare import validate_job
from activelr_service.service.propose import propose, propose_job


def write_table(path, header="width,height,kind", rows=40):
    lines = [f"{i % 7}.5,{i % 5}.25,{'ab'[i % 2]}" for i in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def write_images(root, side, count=8, classes=("cat", "dog")):
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (side + 8, side), (number * 20, 0, 0)).save(root / name / f"{number}.png")
    return root


def test_a_table_predicts_the_column_that_is_called_a_target_else_the_last_one_else_the_given_one(tmp_path):
    last = propose(write_table(tmp_path / "a.csv"))
    assert last.data["target"] == "kind"
    assert any("the last column" in line for line in last.why)
    named = propose(write_table(tmp_path / "b.csv", header="label,height,kind"))
    assert named.data["target"] == "label"
    given = propose(write_table(tmp_path / "c.csv"), target="height")
    assert given.data["target"] == "height"
    with pytest.raises(CommandError, match="no column 'nope' to predict; it has width, height, kind"):
        propose(tmp_path / "a.csv", target="nope")


def test_columns_that_only_name_the_rows_are_left_out_and_said(tmp_path):
    lines = [f"{i},person {i} of the list,{i % 9},{'yn'[i % 2]}" for i in range(400)]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["id,name,age,target", *lines]))
    found = propose(path)
    assert found.data["ignore"] == ["id", "name"]
    assert any("id, name" in line for line in found.why)


def test_a_folder_with_train_and_val_tables_is_validated_on_the_second(tmp_path):
    write_table(tmp_path / "train.csv")
    write_table(tmp_path / "val.csv")
    found = propose(tmp_path)
    assert (found.data["path"], found.data["val_path"]) == (str(tmp_path / "train.csv"), str(tmp_path / "val.csv"))


def test_small_images_get_their_own_size_and_a_network_for_it_and_large_ones_do_not(tmp_path):
    small, large = propose(write_images(tmp_path / "small", 28)), propose(write_images(tmp_path / "large", 300))
    assert (small.data["image_size"], small.data["augment"], small.model["stem"]) == (28, "light", "cifar")
    assert "stem" not in large.model


def test_images_of_many_sizes_are_judged_by_their_median_and_hardly_enlarged_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for number, side in enumerate((20, 20, 70, 80, 90, 100, 110)):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (side, side)).save(tmp_path / "cat" / f"{number}.png")
    found = propose(tmp_path)
    assert found.data["image_size"] == 96
    assert "image_size 96, because the images have 80 pixels and there is no GPU" in "\n".join(found.why)
    assert propose(write_images(tmp_path / "large", 300)).data["image_size"] == 128


def test_a_saved_dataset_is_trained_on_its_image_and_label_columns(tmp_path):
    import datasets

    images = [Image.new("RGB", (32, 32), (number, 0, 0)) for number in range(20)]
    saved = datasets.Dataset.from_dict({"picture": images, "kind": [number % 2 for number in range(20)]})
    saved.cast_column("kind", datasets.ClassLabel(names=["a", "b"])).save_to_disk(tmp_path / "saved")
    found = propose(tmp_path / "saved")
    assert (found.data["image_column"], found.data["label_column"], found.data["image_size"]) == ("picture", "kind", 32)


def test_arrays_and_texts_are_known(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.rand(50, 4).astype(np.float32), y=np.arange(50) % 3)
    assert propose(tmp_path / "a.npz").model == {"type": "mlp"}
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("It was a dark night.\n" * 500)
    assert propose(tmp_path / "books").data["type"] == "text"
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"line {i}"}) for i in range(400)))
    assert propose(tmp_path / "rows.jsonl").data["type"] == "text"


def test_what_is_no_data_is_refused_with_what_was_seen_and_what_can_be_read(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(CommandError, match=r"holds no data that can be read \(1 .docx .*CSV"):
        propose(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="it is empty"):
        propose(tmp_path / "empty")
    with pytest.raises(CommandError, match="only a table has a target"):
        propose(write_images(tmp_path / "images", 100), target="kind")


def test_the_job_is_written_beside_the_runs_and_a_changed_one_stays(tmp_path):
    table = write_table(tmp_path / "my table.csv")
    overrides = [f"output_dir={tmp_path / 'out'}"]
    file, lines = propose_job(table, overrides)
    assert file == tmp_path / "out" / "my-table" / "job.yaml"
    assert str(file) in lines[-1]
    assert validate_job(read_job(file, overrides)[0], None).job.task == "classification"
    file.write_text(file.read_text().replace("epochs: 40", "epochs: 3"))
    again, lines = propose_job(table, overrides)
    assert read_job(again)[0].epochs == 3
    assert "has a job already" in lines[0]


def test_two_data_of_one_name_are_not_mixed_up(tmp_path):
    overrides = [f"output_dir={tmp_path / 'out'}"]
    propose_job(write_table(tmp_path / "a" / "rows.csv"), overrides)
    with pytest.raises(CommandError, match="trains on other data; give this one another name: --set name=NAME"):
        propose_job(write_table(tmp_path / "b" / "rows.csv"), overrides)
    file, _ = propose_job(tmp_path / "b" / "rows.csv", [*overrides, "name=others"])
    assert file.parent.name == "others"


@pytest.mark.ray
def test_the_command_says_what_it_takes_the_data_for_and_trains_a_model(tmp_path):
    table = write_table(tmp_path / "rows.csv")
    command = [sys.executable, "-m", "activelr_service.cli", "train", table, "--set", "epochs=1"]
    done = subprocess.run(
        [*command, "--set", "workers.num_workers=1"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "predicted: 'kind', the last column; --target COLUMN names another one" in done.stdout
    assert (tmp_path / "outputs" / "rows" / "001" / "model" / "model.safetensors").exists()
