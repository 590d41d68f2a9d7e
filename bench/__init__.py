"""What the gateway costs, measured beside nginx and its peers in one run.

*server* a process (with its children) under test, pinned to one core · *case* what it is made to
do for each request, with proof that it did · *round* one turn through all cases; rounds are
interleaved, so that a noisy minute falls on everybody · *direct* the stub without anything in
front: what the load and the stub cost by themselves.
"""
