"""Where checks are run: pytest fixtures, the recorder and the hermetic runner."""
