"""What the tests' own processes have in common."""


class Program:
    """Runs in `self.process`; killed at the end of its block."""

    process = None

    def close(self):
        """Ends it if the test did not; the exit code."""
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait(timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
