"""One file a workload. Each has the same three functions, called in a process of their own:

    floor(folder, part) -> figures       the raw loop over the same library
    ours(folder, part) -> figures        escqrs
    peer(folder, part) -> figures        eventsourcing, or another that the workload names

`folder` is an empty folder on a real disk, `part` (0 to 1) shortens the work. Figures have names;
the rows of the table that `make bench` prints are in `rows`, with what each is to reach.
"""
