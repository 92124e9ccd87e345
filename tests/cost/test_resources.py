"""What is asked of a cluster, by a plan."""

import subprocess
import sys

import pytest

from lrmoclip.cost.plan.resources import LOST, planned
from lrmoclip.train.memory import ROOM

HEAD = "rule,base,domain,method,jobs,device,gpus,wall_hours,peak_memory_gb,disk_gb"


@pytest.fixture
def plan(tmp_path):
    rows = [
        "train,b,d,lora,3,h100,8,6,20,48", "train,b,d,lora,3,a100,8,9,20,48",
        "base,b,,,1,h100,1,0,4,16",
    ]  # fmt: skip
    path = tmp_path / "plan.csv"
    path.write_text("\n".join([HEAD, *rows]))
    return planned(path)


def test_a_job_has_what_is_predicted_of_the_first_device_and_more(plan):
    memory, minutes, gpus = plan["train", "b", "d", "lora"]

    assert memory == 1.6 * 8 * (16_000 + 4_000) and gpus == 8  # the base, a process a GPU
    assert minutes == 2 * 2 * 60 + 10  # three jobs of two hours each
    assert plan["base", "b", "", ""] == (32_000, 10, 1)


def test_a_cpu_is_no_gpu(tmp_path):
    path = tmp_path / "plan.csv"
    path.write_text(f"{HEAD}\nfisher,b,,,1,cpu-2,0,0.5,2,1")

    assert planned(path)["fisher", "b", "", ""] == (3200, 70, 0)


def test_nothing_is_known_of_what_is_not_planned(plan, tmp_path):
    assert plan.get(("train", "b", "d", "ewc")) is None
    assert planned(tmp_path / "none.csv") == {}


def test_the_margin_is_what_processes_took_beyond_their_tensors():
    assert LOST * ROOM["cpu"] >= 1


def test_a_snakefile_that_asks_imports_nothing_heavy():
    code = "import lrmoclip.cost.plan.resources, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"torch", "pandas", "numpy", "pydantic", "transformers"} & set(done.stdout.split())
