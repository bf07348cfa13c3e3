"""Projection in 3-D with the views split over eight devices, and over two processes, equals that of one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _start(*arguments: str, flags: str = "") -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_backend_optimization_level=1 {flags}"}
    command = [sys.executable, "-m", "tests.pet.sharded_projection", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_eight_devices_are_one():
    process = _start(flags="--xla_force_host_platform_device_count=8")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "8 devices, 1 processes: the same" in said


def test_two_processes_are_one_device():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [_start(f"localhost:{port}", "2", str(k)) for k in range(2)]
    try:
        said = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert all("2 devices, 2 processes: the same" in one for one in said)
