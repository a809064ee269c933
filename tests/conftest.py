"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, settings

# As the command line does, and before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a worker for every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# The machines that run these tests are shared: a slow first call is no fault of the code's.
settings.register_profile(
    "encodercheck",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("encodercheck")
