"""What holds for the whole suite."""

pytest_plugins = ["tests.support.secret_grep"]
