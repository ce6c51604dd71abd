import json
import math
import shutil
import subprocess
import sys

import pytest
from tests.trackers.recording import begin, end, log, segment
from tests.trackers.service_runs import OFFLINE, deliver, logged, media, train, values, wait_until, worker, write_media
from tests.trackers.services import offline_folder, wandb_end, wandb_numbers, wandb_records, wandb_state

from relume.errors import ConfigurationError, MissingPackageError
from relume.trackers.mlflow import MLflow
from relume.trackers.rebuilding import rebuild, spec_of
from relume.trackers.state import State, state_path
from relume.trackers.wandb import WandB

pytest.importorskip("wandb")


def test_an_offline_run_has_config_history_files_and_summary(tmp_path):
    lines = [values(s, loss=1 / s) for s in range(1, 51)] + [values(51, loss=math.nan), values(52, loss=math.inf)]
    lines += [values(5, step=7, _private=1.0), values(60, **{"a.b/c d%\n\ud800": 2.0, "": 3.0, "val/accuracy": 0.75})]
    folder = logged(tmp_path, lines, config={"lr": 0.1, "model": {"width": 8, "name": "caf\xe9"}})
    state = deliver(folder, WandB(project="p", tags=("a", "b"), notes="why", group="g", job_type="j"), **OFFLINE)
    assert state.stage == "done" and state.left_out == 0 and "wandb sync" in state.remembered["url"]
    found = wandb_records(folder)
    (run,) = found["run"]
    assert (run["project"], run["run_group"], run["job_type"], run["notes"]) == ("p", "g", "j", "why")
    assert run["tags"] == ["a", "b"] and run["display_name"] == "logged"
    rows = [record["item"] for record in found["history"]]
    assert [(r["step"], r["loss"]) for r in rows[:50]] == [(s, 1 / s) for s in range(1, 51)]
    assert [r["_timestamp"] for r in rows[:2]] == [1_700_000_001.0, 1_700_000_002.0] and rows[0]["epoch"] == 1
    assert [rows[i]["loss"] for i in (50, 51)] == ["NaN", "Infinity"]
    assert (rows[52]["step"], rows[52]["logged/step"], rows[52]["logged/_private"]) == (5, 7, 1)
    assert rows[53]["unnamed"] == 3 and any(name.startswith("a.b/c d%") for name in rows[53])
    assert any(m.get("glob_name") == "*" and m["step_metric"] == "step" for m in found["metric"])
    whole = wandb_state(folder)
    assert whole["config"]["model"] == {"width": 8, "name": "caf\xe9"} or whole["config"]["model.width"] == 8
    assert whole["summary"]["best/val/accuracy"] == 0.75 and whole["summary"]["best/loss"] == 1 / 50
    assert found["exit"][0].get("exit_code", 0) == 0
    listed = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(folder / "wandb")], capture_output=True, text=True
    )
    assert "Would sync 1 run" in listed.stderr + listed.stdout


def test_every_kind_of_media_is_one_of_wandbs_types(tmp_path):
    lines = write_media(tmp_path / "logged" / "..")
    folder = logged(tmp_path, [])
    (tmp_path / "media").rename(folder / "media")
    journal = folder / "journal" / "0001.jsonl"
    first, end = journal.read_text().splitlines()[0], journal.read_text().splitlines()[-1]
    journal.write_text("\n".join([first, *map(json.dumps, lines), end]) + "\n")
    state = deliver(folder, WandB(), **OFFLINE)
    assert (state.left_out, state.skipped_kinds, state.error) == (0, [], None)
    items = {}
    for record in wandb_records(folder)["history"]:
        step = record["item"]["step"]
        items |= {name: (step, value) for name, value in record["item"].items()}
    kinds = {name.removesuffix("._type"): found for name, found in items.items() if name.endswith("._type")}
    assert (
        kinds["photo"] == (1, "image-file") and items["photo.width"][1] == 8 and items["photo.caption"][1] == "a <b> ?"
    )
    assert kinds["weights"] == (2, "histogram") and items["weights.values"][1] == [3, 4]
    many = items["many bins.values"][1]
    assert len(many) == 500 and sum(many) == sum(range(2000))
    assert kinds["said"] == (3, "html-file") and kinds["shape"] == kinds["points"] == (4, "object3D-file")
    assert kinds["model"] == (5, "table-file") and items["model.nrows"][1] == 2
    assert kinds["rows"] == kinds["stored rows"] == (6, "table-file") and kinds["drawn"] == (7, "image-file")
    assert kinds["curve_table"] == (8, "table-file") and kinds["confusion_table"] == (9, "table-file")
    assert items["confusion_table.nrows"][1] == 4
    files = offline_folder(folder) / "files"
    text = (files / items["said.path"][1]).read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text
    mesh = (files / items["shape.path"][1]).read_text()
    assert mesh.splitlines() == ["v 0 0 0 1 0 0", "v 1 0 0 0 1 0", "v 0 1 0 0 0 1", "f 1 2 3"]
    assert wandb_state(folder)["summary"]["best/val/loss"] == 0.5


def test_a_resume_keeps_the_id_and_each_step_stands_once_with_checkpoints_as_artifacts(tmp_path):
    folder = train(tmp_path, 3, config={"lr": 0.1})
    first = deliver(folder, WandB(), **OFFLINE)
    assert train(tmp_path, 4, resume=1, config={"lr": 0.2}) == folder  # epochs 2 and 3 are a dead branch
    second = deliver(folder, WandB(), WANDB_MODE="online")  # a run keeps its mode
    assert second.remembered["id"] == first.remembered["id"] and second.remembered["mode"] == "offline"
    assert [step for step, _ in wandb_numbers(folder)["train/loss"]] == list(range(1, 9))
    assert [step for step, _ in wandb_numbers(folder)["val/loss"]] == [2, 4, 6, 8]
    assert wandb_state(folder)["config"]["lr"] == 0.2
    (model,) = [found for found in wandb_records(folder)["artifact"] if found["type"] == "model"]
    assert {"best", "last", "step-8"} < set(model["aliases"]) and model["type"] == "model"
    (weights,) = (folder / "wandb" / "checkpoints").glob("*-epoch-4-*.safetensors")
    from safetensors.torch import load_file

    assert sorted(load_file(weights)) == ["bias", "weight"]


def test_a_failure_is_an_alert_and_the_exit_status(tmp_path):
    folder = logged(tmp_path, [values(1, loss=1.0)], error=ValueError("the data is <gone>"))
    deliver(folder, WandB(artifacts=False), **OFFLINE)
    found = wandb_records(folder)
    assert (
        found["alert"][0]["title"] == "logged failed" and "ValueError: the data is <gone>" in found["alert"][0]["text"]
    )
    assert found["exit"][0]["exit_code"] == 1


def test_a_sweeps_agent_gives_the_run_its_id(tmp_path):
    folder = logged(tmp_path, [values(1, loss=1.0)], config={"lr": 0.5})
    sweep = {"WANDB_SWEEP_ID": "sweep7", "WANDB_RUN_ID": "trial3", "WANDB_PROJECT": "swept", **OFFLINE}
    state = deliver(folder, WandB(project="other"), **sweep)
    (run,) = wandb_records(folder)["run"]
    assert (run["run_id"], run["sweep_id"], run["project"]) == ("trial3", "sweep7", "swept")
    assert state.remembered["id"] == "trial3"


def test_disabled_sends_nothing(tmp_path):
    folder = logged(tmp_path, [values(1, loss=1.0)])
    assert deliver(folder, WandB(mode="disabled")).stage == "done"
    assert not (folder / "wandb").exists()


def test_the_mode_is_offline_where_there_is_no_login(tmp_path, monkeypatch):
    from relume.trackers.wandbrun import mode_of_environment

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_DISABLED", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert mode_of_environment() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert mode_of_environment() == "online"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert mode_of_environment() == "offline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "of"}, r"WandB\(mode='of'\).*offline"),
        ({"artifacts": True}, r"WandB\(artifacts=True\).*False, for none"),
        ({"tags": "baseline"}, r"tags must be several texts: tags=\('a', 'b'\)"),
        ({"project": 3}, r"WandB\(project=3\): project must be text"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        WandB(**arguments)


def test_it_can_be_built_again_in_another_process():
    tracker = WandB(project="p", tags=("a",), mode="offline", artifacts=False)
    assert rebuild(json.loads(json.dumps(spec_of(tracker)))) == tracker


def test_a_journal_cannot_name_a_file_outside_of_its_run(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = logged(tmp_path, [media(1, "taken", kind="image", file="../secret.png"), values(2, loss=1.0)])
    state = deliver(folder, WandB(artifacts=False), **OFFLINE)
    assert state.left_out == 1 and "'../secret.png' is not a file of the run logged" in str(state.error)
    assert wandb_numbers(folder) == {"loss": [(2, 1.0)]}
    assert not list(offline_folder(folder).rglob("*.png"))


def test_when_wandbs_own_process_is_killed_each_step_is_there_once(tmp_path):
    import psutil

    folder = begin(tmp_path / "run", is_alive=True)
    tracker = WandB(mode="offline", artifacts=False)
    with segment(folder) as journal:
        log(journal, range(20))
        with worker(folder, tracker) as process:
            wait_until(lambda: State.load(state_path(folder, "wandb")).delivered == 20, process)
            (core,) = [p for p in psutil.Process(process.pid).children() if "wandb-core" in p.name()]
            core.kill()
            log(journal, range(20, 40))
            end(journal, step=40)
            assert process.wait(90) == 0
    assert wandb_numbers(folder)["loss"] == [(step, 1 / (step + 1)) for step in range(40)]
    assert wandb_end(folder) == "0"


def test_when_the_delivery_and_wandb_are_killed_the_files_are_whole_after_the_next(tmp_path):
    import psutil

    folder = begin(tmp_path / "run", is_alive=True)
    tracker = WandB(mode="offline", artifacts=False)
    with segment(folder) as journal:
        log(journal, range(20))
        with worker(folder, tracker) as process:
            wait_until(lambda: State.load(state_path(folder, "wandb")).delivered == 20, process)
            core = psutil.Process(process.pid).children()
            process.kill()
            for child in core:
                child.kill()
            process.wait()
        log(journal, range(20, 30))
        end(journal, step=30)
    assert deliver(folder, tracker).stage == "done"
    assert wandb_numbers(folder)["loss"] == [(step, 1 / (step + 1)) for step in range(30)]


def test_code_is_an_artifact_and_the_commit_is_told(tmp_path):
    folder = logged(tmp_path, [values(1, loss=1.0)])
    shutil.rmtree(folder / "code", ignore_errors=True)  # what this test itself consists of
    for path in ("code", "trackers"):
        (folder / path).mkdir(exist_ok=True)
    (folder / "code" / "diff.patch").write_text("+print(1)\n")
    tree = {"is_git": True, "commit": "a" * 40, "remote": "https://example.org/x.git"}
    (folder / "provenance.json").write_text(json.dumps({"segments": [{"code": {"trees": [tree]}}]}))
    deliver(folder, WandB(artifacts=False), **OFFLINE)
    found = wandb_records(folder)
    (code,) = found["artifact"]
    assert code["type"] == "code" and [c["path"] for c in code["manifest"]["contents"]] == ["diff.patch"]
    assert found["environment"][0]["git"] == {"commit": "a" * 40, "remote_url": "https://example.org/x.git"}
    assert (offline_folder(folder) / "files" / "provenance.json").exists()


@pytest.mark.parametrize(("tracker", "package"), [(WandB(), "wandb"), (MLflow(), "mlflow")])
def test_a_missing_package_is_named(tracker, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf'pip install "relume\[{package}\]"'):
        tracker.check()
