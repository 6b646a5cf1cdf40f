"""Several processes as one run: how they find each other."""

import errno
import os
import socket
from collections.abc import Mapping

import jax

from funcnet.checks import check_count, is_count
from funcnet.errors import ConfigError, PortError, translated
from funcnet.made import leading

__all__ = ["in_cluster", "start"]

# Environment variables by which jax recognises a cluster, each with the variable that has the number of processes, or
# `None`. An index of Kubernetes counts within it only: other systems set the variable too.
_CLUSTERS = {
    "SLURM_JOB_ID": "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_SIZE", "JOB_COMPLETION_INDEX": None,
}  # fmt: skip


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    devices: int | None = None,
) -> None:
    """Join the other processes of a run. Call it before anything else that uses jax.

    For one process alone it does nothing. In a job of SLURM, Open MPI or Kubernetes jax finds the other processes by
    itself. Elsewhere the arguments say where they are, as `funcnet launch` does.

    The coordinator listens only at its own address, not at all addresses of the machine. It has no password, and
    whoever reaches it takes part in the run. Keep it within a network that you trust.

    Args:
        coordinator: `"host:port"` of process 0.
        num_processes, process_id: how many there are, and which one this is, from 0.
        devices: for CPUs, how many devices this process has.

    Raises:
        ConfigError: some of the first three arguments without the others, or impossible ones, or jax was used before.
        PortError: another program uses the coordinator's port.

    >>> import funcnet as fn
    >>> fn.parallel.start()
    """
    if devices is not None:
        with leading("parallel.start"):
            _update_devices(check_count("devices", devices))
    given = [coordinator is not None, num_processes is not None, process_id is not None]
    if any(given) and not all(given):
        got = f"{coordinator!r}, {num_processes!r}, {process_id!r}"
        raise ConfigError(f"parallel.start: expected coordinator, num_processes and process_id together, got {got}.")
    if coordinator is None:
        if in_cluster(os.environ):
            _initialize()
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"parallel.start: expected coordinator to be host:port, got {coordinator!r}.")
    if not is_count(num_processes) or not is_count(process_id, 0) or int(process_id or 0) >= int(num_processes or 0):
        got = f"{process_id!r} of {num_processes!r}"
        raise ConfigError(f"parallel.start: expected process_id from 0 to num_processes - 1, got {got}.")
    if num_processes == 1:
        return
    if process_id == 0:
        _check_port(host, int(port))
    _initialize(
        coordinator_address=coordinator, num_processes=num_processes, process_id=process_id,
        coordinator_bind_address=coordinator, cluster_detection_method="deactivate",
    )  # fmt: skip


def in_cluster(variables: Mapping[str, str]) -> bool:
    """Whether the environment is that of a job of several processes."""
    for mark, count in _CLUSTERS.items():
        alone = "KUBERNETES_SERVICE_HOST" not in variables if count is None else variables.get(count, "1") == "1"
        if mark in variables and not alone:
            return True
    return False


def _check_port(host: str, port: int) -> None:
    """Refuse a port that is in use. Two coordinators of jax would share it, and each would end the run of the other."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            got = f"{host}:{port}, which another program uses"
            raise PortError(f"parallel.start: expected coordinator to be a free port, got {got}.") from error


def _update_devices(devices: int) -> None:
    with translated(RuntimeError, ConfigError, "expected to come before anything else that uses jax"):
        jax.config.update("jax_num_cpu_devices", devices)


def _initialize(**arguments) -> None:
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself, and no run would stop
    kinds, fix = (RuntimeError, ValueError, LookupError, OSError), "check coordinator, num_processes and process_id"
    with translated(kinds, ConfigError, "parallel.start: the processes could not connect", fix):
        # Short times, because a run that has lost a process ends and is started again from its last checkpoint.
        jax.distributed.initialize(
            initialization_timeout=60, heartbeat_timeout_seconds=30, shutdown_timeout_seconds=30, **arguments
        )
