"""Settings that every test shares."""

from hypothesis import HealthCheck, settings

# The machines that run these tests are shared: a slow first call is no fault of the code's.
settings.register_profile(
    "encodercheck",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("encodercheck")
