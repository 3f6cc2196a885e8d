"""What the code of whole fits is given."""

from __future__ import annotations

import enum


class Argument(enum.IntEnum):
    """The arguments of the function, a table of eight bytes each."""

    leaves = 0  #: pointer to pointers to the arrays of rows
    weights = 1  #: of rows, in the precision of the fit
    offsets = 2  #: first row of each data set
    lengths = 3  #: number of its rows
    order = 4  #: the numbers of the data sets, in the order in which they are begun
    n_obs = 5  #: of each data set
    settings = 6  #: numbers of each data set, eight bytes each
    settings_stride = 7  #: bytes from one data set to the next; 0 where all share them
    max_steps = 8  #: of each data set
    tolerance = 9  #: pointer to one number
    floats = 10  #: states: their numbers of floats, a row for each data set
    integers = 11  #: states: their whole numbers and booleans, four bytes each
    points = 12  #: where each data set is evaluated first
    begin = 13  #: place in the order of the first data set of this call
    end = 14  #: and behind the last
    step = 15  #: the step's function
    memory = 16  #: its memory
    step_workspace = 17
    workspace = 18
    scratch = 19  #: for the columns of the data sets that are being fitted
    capacity = 20  #: rows that each of them may have there
    stop = 21  #: pointer to a number that is not zero once the call should end
    turns = 22  #: pointer to the number of turns taken
    extra = 23  #: further numbers of the step's arguments, in the precision of the fit
    extra_stride = 24  #: bytes from one data set to the next
