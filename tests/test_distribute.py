"""A run on a Ray cluster of this machine: the rows of one process, though workers die; who differs is refused."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import HURRIED, make, told_worker, words
from command import bench, told

from benchmark.contracts.progress import silent
from benchmark.engine.alike import versions
from benchmark.engine.cluster import Lost, start_ray
from benchmark.engine.deaths import Deaths
from benchmark.engine.graph import Graph, Node, ranges
from benchmark.engine.jobs import JobMaker
from benchmark.engine.options import RunOptions
from benchmark.engine.ray_address import refuse_dead_address
from benchmark.engine.report import Hooks
from benchmark.engine.run import run
from benchmark.engine.session import Encoded
from benchmark.engine.target import checkpoints_of, targets
from benchmark.engine.worker import Answer, Brief, Worker
from benchmark.registry import units
from benchmark.rows.row import Row, read_all
from benchmark.system.files import disk_errors

OF_A_RUN = ("created", "command", "timing", "peak_memory_mb", "peak_memory_method", "sha256")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = start_ray(num_cpus=2, object_store_memory=80 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("many"))


def rows(results: Path) -> dict[str, dict[str, Any]]:
    """What must be the same, by the row's folder; a torn row is an error."""
    found, problems = read_all(results)
    assert not problems
    return {str(row.folder.relative_to(results)): content(row) for row in found}


def content(row: Row) -> dict[str, Any]:
    said = row.data.json()
    return {**{k: v for k, v in said.items() if k not in OF_A_RUN}, "threads": said["environment"]["threads"]}


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray starts its servers so, which run no JAX
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")  # Ray's
def test_checkpoints_give_the_rows_of_one_process_though_workers_die(
    place: Path, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    every = ("--weights", str(place / "runs" / "step-*"), "--no-check")
    assert bench(*words(place, tmp_path / "many", *every, "--ray", "local")) == 0
    assert "6 rows made, 0 were there" in capsys.readouterr().out
    deaths = ["died-encoding", "died-in-a-head", "died-writing-a-row"]
    assert [name for name in deaths if (place / name).exists()] == deaths
    loads = (place / "loaded").read_text().split("\n")[:-1]
    assert len(loads) == len(set(loads)), "a worker loads a checkpoint once"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "other"))
    assert bench(*words(place, tmp_path / "one", *every)) == 0
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    assert len(rows(tmp_path / "one")) == 6
    assert not list(tmp_path.glob("cache/heads/*")) and not list(tmp_path.rglob("*.tmp"))
    code, out, _ = told(capsys, *words(place, tmp_path / "many", *every, "--gpus", "1"))
    assert (code, "0 rows made, 6 were there" in out) == (0, True)


class Here:
    """One worker in this process in place of a cluster; a row's first `lives` end after `step(life)` of its head."""

    size, threads = 1, 1

    def __init__(self, lives: int, step: Callable[[int], int]) -> None:
        self.lives, self.step, self.lived = lives, step, 0
        self.answers: list[Answer | Lost] = []

    def give(self, brief: Brief) -> None:
        self.worker = Worker(brief, 1)

    def hire(self) -> Worker:
        return self.worker

    def call(self, worker: Worker, *words: Any) -> int:
        self.answers.append(self.answer(worker, *words))
        return len(self.answers) - 1

    def answer(self, worker: Worker, *words: Any) -> Answer | Lost:
        if words[0] == "row" and self.lived < self.lives:
            state = words[5].scratch(Path(os.environ["BENCH_CACHE"])) / "state.safetensors"
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(str(self.step(self.lived)))
            self.lived += 1
            return Lost("killed")
        return worker.do(*words)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[tuple[Any, Any]]:
        return [(call, self.answers[call]) for call in calls]

    def fire(self, worker: Worker) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("step", "lived"), [(lambda life: life, 9), (lambda life: life // 3, 9), (lambda life: 0, 4)])
def test_a_row_fails_after_four_deaths_without_a_new_checkpoint_of_its_head(
    step: Callable[[int], int], lived: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    here = Here(9, step)
    monkeypatch.setattr("benchmark.engine.spread.Cluster", lambda *_: here)
    hurry = dict(w.split("=", 1) for w in HURRIED if w.startswith("classification"))
    model, task = f"{place / 'dying.py'}:build", str(place / "labels.toml")
    report = run(model, task, overrides=hurry, ray="local", check=False, results=tmp_path / "rows")
    assert (here.lived, len(report.rows), len(report.failures)) == (lived, int(lived == 9), int(lived == 4))
    if lived == 4:
        assert report.failures[0].text == "its worker was lost 4 times without getting any further (killed)"


def test_workers_that_die_before_they_begin_count_until_one_has_begun(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path)
    for _ in range(2):
        assert [deaths.count("hello") for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
        assert deaths.too_many("hello", workers=2) and not deaths.too_many("hello", workers=3)
        deaths.forget("hello")
        assert not deaths.too_many("hello")


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore::ResourceWarning")
def test_a_cluster_whose_packages_differ_is_refused_in_one_line(
    place: Path, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {**versions(), "torch": "0.0"}
    monkeypatch.setattr("benchmark.engine.spread.versions", lambda: here)
    code, _, said = told(capsys, *words(place, tmp_path / "rows", "--ray", "local"))
    assert code == 1
    assert "error: --ray: no worker can take part: a worker on " in said
    assert f"has torch {versions()['torch']}, asked for was 0.0. Install the same there" in said
    assert not list((tmp_path / "rows").rglob("result.json"))


def test_a_worker_says_what_it_lacks(place: Path, tmp_path: Path) -> None:
    assert told_worker(place, tmp_path).do("hello") == Answer()
    blind = told_worker(place, tmp_path, seen=(tmp_path / "elsewhere" / "mark",))
    assert f"does not see {tmp_path / 'elsewhere'}. " in blind.do("hello").refused
    other = told_worker(place, tmp_path)
    digest, *_ = other.brief.pictures
    other = told_worker(place, tmp_path, pictures={digest: "0" * 64})
    assert "reads another picture for" in other.do("hello").refused


def test_a_worker_that_loads_other_weights_stores_nothing(place: Path, tmp_path: Path) -> None:
    worker = told_worker(place, tmp_path)
    opened = worker.do("open", 0, None).opened
    assert opened and list(opened.jobs) == [0]
    (key, plan), *_ = opened.passes.items()
    refused = worker.do("encode", (0, (0,), "0" * 64, key, [plan.blocks[0][0]])).refused
    assert "Give every machine the same files" in refused
    assert not list(tmp_path.rglob("shard-*"))


def test_a_full_disk_is_the_rows_line(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: Any) -> None:
        with disk_errors(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    worker = told_worker(place, tmp_path)
    opened = worker.do("open", 0, None).opened
    assert opened
    (key, plan), *_ = opened.passes.items()
    monkeypatch.setattr("benchmark.features.store.write_atomic", full)
    words = (0, (0,), opened.identity)
    for answer in (
        worker.do("encode", (*words, key, [plan.blocks[0][0]])),
        worker.do("row", *words, 0, opened.todo[0], Encoded()),
    ):
        assert "the disk is full. Free some space on it" in answer.failed


def test_what_another_run_does_is_waited_for(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    hurry = dict(w.split("=", 1) for w in HURRIED if w.startswith("classification"))
    model, task = f"{place / 'dying.py'}:build", str(place / "labels.toml")
    first = run(model, task, results=tmp_path / "first", overrides=hurry)
    options = RunOptions(results=tmp_path / "second", overrides=hurry)
    jobs = [JobMaker(options, "fast", silent).make(units(task)[0])]
    (row,) = first.rows
    slot = replace(targets([model], options)[0].slots(jobs, "")[0], request=row.data.request)
    claim = slot.claim(options.cache)
    assert claim.take() and not slot.claim(options.cache).take()
    found: list[Any] = []
    waits = threading.Event()

    def heard(label: str, total: int) -> Any:
        if label == f"waiting for another run ({row.unit})":
            waits.set()
        return silent(label, total)

    second = threading.Thread(target=lambda: found.append(run(model, task, options=options, hooks=Hooks(heard))))
    second.start()
    assert waits.wait(60)
    shutil.copytree(row.folder, slot.folder)
    claim.free()
    second.join(20)
    assert (found[0].reused, found[0].forwards) == (1, {first.rows[0].model: 0})


def test_the_line_names_the_extra(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.engine.cluster.find_spec", lambda name: None)
    code, _, said = told(capsys, *words(place, place / "none", "--gpus", "2"))
    assert (code, "pip install 'densebench[ray]'" in said) == (2, True)


def test_checkpoints_by_their_numbers(place: Path, tmp_path: Path) -> None:
    found = checkpoints_of(str(place / "runs" / "*"))
    assert [Path(str(p)).name for p in found] == ["step-9", "step-10", "step-100"]
    code = bench("run", "--model", "random-vit", "--task", "depth/scenes", "--weights", str(tmp_path / "no-*"))
    assert code == 2


def test_ranges_are_whole_in_order_and_even() -> None:
    assert ranges([1, 2, 5, 6, 7], 2) == [[1, 2], [5, 6, 7]]
    assert ranges([4], 8) == [[4]]
    assert sorted(len(r) for r in ranges(range(10), 4)) == [2, 2, 3, 3]


def test_the_order_of_a_graph() -> None:
    graph = Graph()

    def taken(loaded: int | None) -> str:
        node = graph.next(loaded)
        return node.key if node else ""

    graph.add([Node("open 0", model=0, opens=True), Node("open 1", model=1, opens=True)])
    assert taken(None) == "open 0"
    graph.add([Node("range", 1.0, (), 0), Node("short", 2.0, ("range",), 0), Node("long", 5.0, (), 0)])
    graph.done("open 0")
    assert [taken(0), taken(0)] == ["long", "range"]
    assert taken(0) == "open 1", "a model that nobody has, before waiting"
    assert (taken(0), graph.finished) == ("", False)
    graph.done("range")
    assert taken(1) == "short", "helps where there is nothing else"
    graph.again(graph.nodes["short"])
    assert taken(0) == "short", "what its worker did not end is done again"
    for key in ("open 1", "short", "long"):
        graph.done(key)
    assert graph.finished


def test_a_rendered_split_is_open_to_whom_the_umask_lets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.system.files import FOLDER_MODE
    from tasks.scenes.store import rendered

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert rendered("test", 16, 2).stat().st_mode & 0o777 == FOLDER_MODE != 0o700


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def answering(said: bytes) -> tuple[socket.socket, str]:
    """A server that says `said` to whoever comes first, and its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with suppress(OSError):
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(said)

    threading.Thread(target=answer, daemon=True).start()
    return server, f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("no.such.host.invalid:1234", 1, "no cluster there: "),
        ("{closed}", 1, "no cluster there: Connection refused. Start one: ray start --head"),
        ("{web}", 1, "is no Ray head (whose port is 6379 unless another was given)"),
        ("{silent}", 1, "nothing answers within 0 s"),
        ("head", 2, "head is no address. Give host:port, ray://host:port, auto or local"),
        ("http://head:8265", 2, "is no address"),
        ("head:port", 2, "is no address"),
        ("auto", 1, "no cluster runs on this machine, and RAY_ADDRESS is not set"),
    ],
)
def test_an_address_without_a_cluster_is_one_line_at_once(
    address: str, code: int, said: str, place: Path, no_cluster: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("benchmark.engine.ray_address.WAIT_S", 0.2)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda *_: None)
    web, silent_one = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), socket.create_server(("127.0.0.1", 0))
    address = address.format(web=web[1], silent=f"127.0.0.1:{silent_one.getsockname()[1]}", closed="127.0.0.1:9")
    with web[0], silent_one:
        found, _, err = told(capsys, *words(place, tmp_path / "rows", "--ray", address))
    assert (found, len(err.splitlines())) == (code, 1) and f"error: --ray {address}: " in err and said in err


def test_the_address_of_a_head_is_taken() -> None:
    server, address = answering(bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes(6))
    with server:
        refuse_dead_address(address)
    refuse_dead_address("local")
