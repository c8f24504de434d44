"""How Hypothesis draws here: without a limit of time, and the same examples each time.

With ESCQRS_STRESS=long it draws new ones; what it finds then it prints so that it can be repeated.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "escqrs",
    deadline=None,  # what takes long on a busy machine is not wrong
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=os.environ.get("ESCQRS_STRESS") != "long",
    print_blob=True,
)
settings.load_profile("escqrs")
