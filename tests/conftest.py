"""The suite runs on eight simulated devices and compiles fast, unless its caller says otherwise."""

import os
import signal
import subprocess

import pytest

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # more threads than cores: none may spin
if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":  # most of the suite's time is compilation
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        " --xla_cpu_use_fusion_emitters=false",
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# a shell's background job ignores Ctrl-C, one under nohup a hang-up, and so would all that they
# start; some tests send them
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def processes_end_with_their_test(monkeypatch):
    """Kills what the test itself has started and left running, as it does if it fails half-way."""
    started, start = [], subprocess.Popen.__init__

    def noting(process, *args, **more):
        start(process, *args, **more)
        started.append(process)

    monkeypatch.setattr(subprocess.Popen, "__init__", noting)
    yield
    for process in started:
        process.kill()  # nothing, if it has ended
        process.wait(10)


def pytest_runtest_setup(item):
    """Skips `optimised` in code that is not, `accelerator` for more devices than JAX finds."""
    if item.get_closest_marker("optimised") and "level=0" in os.environ.get("XLA_FLAGS", ""):
        pytest.skip("compiled without optimisation")
    if not item.get_closest_marker("accelerator") or not hasattr(item, "callspec"):
        return
    import jax  # after the variable above

    wanted = item.callspec.params.get("devices", 1)
    if wanted > (found := jax.device_count()):
        pytest.skip(f"needs {wanted} devices, JAX finds {found}")


@pytest.fixture
def full_at():
    """Limits the size of files of this process, which fails as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_handlecrashitem(crashitem, sched):
    """A test that ended its worker has failed; xdist would give it to the next worker too."""
    for scope, tests in list(sched.workqueue.items()):
        if crashitem in tests:
            tests[crashitem] = True
            if all(tests.values()):
                del sched.workqueue[scope]
