"""What ranks could talk through, with cures where something is scarce."""

import resource
import shutil
import socket

import pytest
import torch

from torchrec_mm import gpus, network_interfaces


def test_gpu_pairs_that_cannot_copy_directly_are_named(monkeypatch):
    monkeypatch.setattr(gpus, "count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: (a, b) != (0, 2))
    assert network_interfaces.gpu_links() == {"GPU to GPU": "through host memory: 0-2"}
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda a, b: True)
    assert network_interfaces.gpu_links() == {"GPU to GPU": "all pairs copy directly"}


def test_a_lone_gpu_has_no_links(monkeypatch):
    monkeypatch.setattr(gpus, "count", lambda: 1)
    assert network_interfaces.gpu_links() == {}


def test_interfaces_are_named():
    rows = network_interfaces.group_links()
    assert "lo" in rows["network interfaces"].split(", ")


def test_a_host_name_that_others_cannot_reach_is_told(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "n0")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    assert network_interfaces.own_host_name() == "n0, 127.0.1.1, which only this machine reaches"

    def unknown(name):
        raise socket.gaierror

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert network_interfaces.own_host_name() == "no: n0 has no address; put it in /etc/hosts"


def test_scarce_shared_memory_and_files_come_with_a_cure(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(64 << 20, 0, 0))
    monkeypatch.setattr(network_interfaces.resource, "getrlimit", lambda what: (1024, 1024))
    rows = network_interfaces.limits()
    assert rows["/dev/shm"] == "0.1 GiB; scarce: docker run --shm-size=8g"
    assert rows["open files"] == "1024; scarce: ulimit -n 4096"


@pytest.mark.parametrize(("files", "said"), [(4096, "4096"), (resource.RLIM_INFINITY, "unlimited")])
def test_what_is_just_enough_or_unlimited_needs_no_cure(monkeypatch, files, said):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 0, 0))
    monkeypatch.setattr(network_interfaces.resource, "getrlimit", lambda what: (files, files))
    rows = network_interfaces.limits()
    assert (rows["/dev/shm"], rows["open files"]) == ("1.0 GiB", said)
