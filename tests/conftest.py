"""What holds for all tests: no example fails for having taken long, machines are noisy; speed belongs in benchmarks/."""

from hypothesis import settings

settings.register_profile("timeless", settings.default, deadline=None)
settings.load_profile("timeless")
