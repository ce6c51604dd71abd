import contextlib
import json
import math

import pytest
from tests.trackers.service_runs import deliver, logged, train, values, worker, write_media
from tests.trackers.services import mlflow_client, mlflow_history, mlflow_server

from relume.errors import ConfigurationError
from relume.trackers.mlflow import MLflow
from relume.trackers.mlflownames import allowed_name, params_of
from relume.trackers.rebuilding import rebuild, spec_of
from relume.trackers.state import State, state_path

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def server():
    return mlflow_server()


@pytest.fixture
def client():
    return mlflow_client()


@pytest.mark.timeout(300)  # the server's first start
def test_the_server_lists_the_run_with_params_metrics_tags_and_artifacts(tmp_path, server, client):
    lines = [values(s, loss=1 / s, **{"val/acc 50%": s / 100}) for s in range(1, 1501)]
    lines += [values(1501, loss=math.nan, bound=-math.inf)]
    media_lines = write_media(tmp_path)
    config = {"lr": 0.1, "model": {"width": 8, "layers": [1, 2]}, "long": "x" * 7000, "odd %": True, "none": None}
    folder = logged(tmp_path / "runs", lines + media_lines, config=config)
    (tmp_path / "media").rename(folder / "media")
    tracker = MLflow(server, experiment="first", tags={"team": "vision"}, run_name="shown")
    state = deliver(folder, tracker)
    assert (state.stage, state.left_out, state.skipped_kinds) == ("done", 0, ["histogram"])
    experiment = client.get_experiment_by_name("first")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "shown")
    params = run.data.params
    assert (params["lr"], params["model.width"], params["model.layers"], params["none"]) == (
        "0.1",
        "8",
        "[1, 2]",
        "None",
    )
    assert params["long"] == "x" * 6000 and params[allowed_name("odd %")] == "True" and params["seed"] == "1"
    assert "long" in run.data.tags["relume.cut"] and run.data.tags["team"] == "vision"
    losses = mlflow_history(run.info.run_id, "loss")
    assert losses[:-1] == [(s, 1 / s) for s in range(1, 1501)] and losses[-1][0] == 1501 and math.isnan(losses[-1][1])
    assert client.get_metric_history(run.info.run_id, "loss")[0].timestamp == 1_700_000_001_000
    assert len(mlflow_history(run.info.run_id, allowed_name("val/acc 50%"))) == 1500
    assert run.data.metrics["best/loss"] == 1 / 1500
    kinds = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {
        "images",
        "figures",
        "tables",
        "texts",
        "graphs",
        "meshs",
        "pr_curves",
        "confusion_matrixs",
        "config.json",
    } <= kinds
    target = tmp_path / "back"
    target.mkdir()
    client.download_artifacts(run.info.run_id, "", str(target))
    assert (target / "images/photo/step-00000001.png").read_bytes() == (folder / "media/a.png").read_bytes()
    assert json.loads((target / "tables/rows/step-00000006.json").read_text()) == {
        "columns": ["a", "b"],
        "data": [[1, "x"], [None, "=1+1"]],
    }
    assert json.loads((target / "config.json").read_text())["long"] == "x" * 7000


@pytest.mark.timeout(300)
def test_a_resume_goes_on_with_the_same_run_and_each_step_counts_once(tmp_path, server, client):
    tracker = MLflow(server, experiment="resumed")
    folder = train(tmp_path, 3, config={"lr": 0.1})
    first = deliver(folder, tracker)
    train(tmp_path, 4, resume=1, config={"lr": 0.2})  # epochs 2 and 3 are trained again, the same to the last bit
    second = deliver(folder, tracker)
    assert first.remembered["id"] == second.remembered["id"]
    (run,) = client.search_runs([client.get_experiment_by_name("resumed").experiment_id])
    assert [step for step, _ in mlflow_history(run.info.run_id, "train/loss")] == list(range(1, 9))
    assert [step for step, _ in mlflow_history(run.info.run_id, "val/loss")] == [2, 4, 6, 8]
    assert run.data.params["lr"] == "0.1" and run.data.tags["config.lr"] == "0.2"
    assert run.data.tags["relume.resumed.2"] == "from step 2, epoch 1"
    assert run.info.status == "FINISHED"


@pytest.mark.timeout(300)
def test_what_is_sent_twice_is_one_point(tmp_path, server, client):
    folder = logged(tmp_path, [values(s, loss=1 / s) for s in range(1, 6)], error=RuntimeError("boom"))
    tracker = MLflow(server, experiment="twice")
    deliver(folder, tracker)
    (folder / "trackers" / "mlflow.json").unlink()  # all that was noted is lost
    deliver(folder, tracker)
    (run,) = client.search_runs([client.get_experiment_by_name("twice").experiment_id])
    assert mlflow_history(run.info.run_id, "loss") == [(s, 1 / s) for s in range(1, 6)]
    assert run.info.status == "FAILED" and run.data.tags["relume.reason"] == "RuntimeError: boom"


@pytest.mark.timeout(300)
def test_a_deleted_experiment_says_what_to_do(tmp_path, server, client):
    client.delete_experiment(client.create_experiment("gone"))
    folder = logged(tmp_path, [])
    with pytest.raises(AssertionError):  # the worker's exit status
        deliver(folder, MLflow(server, experiment="gone"))
    error = json.loads((folder / "trackers" / "mlflow.json").read_text())["error"]
    assert "MLflow's experiment 'gone' is deleted" in error and "mlflow experiments restore" in error


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # MLflow's use of SQLAlchemy
def test_without_a_server_there_is_a_database_beside_the_runs(tmp_path):
    folder = logged(tmp_path, [values(1, loss=1.0)])
    state = deliver(folder, MLflow())
    assert state.stage == "done" and "mlflow ui --backend-store-uri sqlite:///" in state.remembered["url"]
    from mlflow import MlflowClient

    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(state.remembered["id"])
    assert run.data.metrics["loss"] == 1.0 and run.info.status == "FINISHED"
    assert (tmp_path / "mlartifacts").is_dir()


def test_two_runs_that_begin_at_once_share_the_new_database(tmp_path):
    folders = [logged(tmp_path, [values(1, loss=0.5)], name) for name in ("one", "two", "three")]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(worker(folder, MLflow())) for folder in folders]
        assert [process.wait(100) for process in processes] == [0, 0, 0], (folders[1] / "worker.log").read_text()
    states = [State.load(state_path(folder, "mlflow")) for folder in folders]
    assert [(state.stage, state.error) for state in states] == [("done", None)] * 3


def test_names_stay_apart_and_are_allowed():
    names = ["50%", "50!", "a//b", "/a", "../a", ".", "", "x" * 300, "x" * 301, "a\\b", "\ud800", "a\nb"]
    allowed = [allowed_name(name) for name in names]
    assert len(set(allowed)) == len(names)
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    for name in allowed:
        _validate_metric_name(name)
        _validate_param_name(name)


def test_long_params_are_cut_and_named():
    params, cut = params_of({"a": {"b": "y" * 6001}, "c": {}})
    assert (len(params["a.b"]), cut, params["c"]) == (6000, ["a.b"], "{}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 1001}, r"MLflow\(batch=1001\): batch must be a whole number from 1 to 1,000"),
        ({"tags": ["a"]}, r"tags are names to texts: tags=\{'team': 'vision'\}"),
        ({"tracking_uri": 5000}, r"MLflow\(tracking_uri=5000\): tracking_uri must be text"),
        ({"experiment": ""}, r"MLflow\(experiment=''\): experiment must be text"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        MLflow(**arguments)


def test_it_can_be_built_again_in_another_process():
    tracker = MLflow("http://127.0.0.1:1", experiment="e", tags={"a": "b"}, batch=10)
    assert rebuild(json.loads(json.dumps(spec_of(tracker)))) == tracker
