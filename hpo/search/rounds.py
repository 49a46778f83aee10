"""How many trials a worker takes at a time where nothing looks at other trials: it takes them in rounds."""

import math


def next_round(waiting: int, workers: int, most: int) -> int:
    """How many of the trials that wait a worker takes next, with which it begins and ends together.

    One worker divides them into even rounds, as few as can be: a step of a few lanes takes nearly as long as
    one of many, and 128 trials, 51 at once, would leave 26. Several take half of an equal part of what waits,
    so that they end at about the same time however much they differ in speed, but at least half of `most`.
    (Factoring: Hummel, Schonberg and Flynn, Communications of the ACM 35(8), 1992.)

    Args:
        waiting: Trials that nobody has.
        workers: That search this study, with this one.
        most: Trials that it trains at once.
    """
    if workers == 1:
        return math.ceil(waiting / max(1, math.ceil(waiting / most)))
    return min(most, math.ceil(max(waiting / (2 * workers), most / 2)))
