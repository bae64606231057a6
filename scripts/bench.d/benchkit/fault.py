"""The one error that is shown without a traceback."""


class Fault(Exception):
    """Something that whoever runs the benchmark can mend, in a sentence."""
