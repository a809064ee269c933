"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, settings

# As the command line does, and before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The machines that run these tests are shared: a slow first call is no fault of the code's.
settings.register_profile(
    "encodercheck",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("encodercheck")
