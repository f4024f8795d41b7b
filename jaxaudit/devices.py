"""The devices of a run, set up before JAX looks at them."""

import os

import jax

from .hosts import ALONE, Hosts, connect


def prepare(distributed: bool) -> Hosts:
    """Set up the devices of a run, and join its other processes. Call it before anything else of JAX.

    A processor counts as one device for each of its cores, so that the cores share the trials like cards do: left to
    itself XLA:CPU splits single operations, which are too short here.

    Args:
      distributed: share the trials with the other processes of this job.

    Returns:
      Hosts.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)
    return connect() if distributed else ALONE
