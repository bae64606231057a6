"""The one error that is shown without a traceback."""


class Fault(Exception):
    """An error that the user of the benchmark can fix, in a sentence."""
