"""Waiting for what a live process will come to say. Every wait has a bound and says what it saw last."""

import time


def until(what, question, timeout_s, every_s=0.2):
    """Asks until the answer is true; returns it. An exception of the question counts as a no."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            answer = question()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            answer, last = None, error
        else:
            last = answer
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what} (last: {last!r})")
        time.sleep(every_s)
