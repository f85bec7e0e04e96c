"""Lets a chain of iptables come and go in a node: links that flap.

The standard library only, and nothing of ours: this very file is put into the node and run there.

    python3 flapper.py IPTABLES HOOK CHAIN MEAN_MS SEED STATS

IPTABLES is the command with its general options, in one word. The chain HOOK jumps to CHAIN and
does not, in turns that take half to one and a half times MEAN_MS each. Whether it does when this
ends, on SIGTERM, is chance: whoever ends it looks after the chain.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time


def main(argv: list[str]) -> None:
    """Flap until SIGTERM."""
    iptables, hook, chain, mean_ms, seed, stats = argv
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    rng = random.Random(seed)
    cuts, cut_s = 1, 0.0
    began = time.monotonic()
    # Whoever started this has set the chain: it is cut now.
    is_cut = True
    _write(stats, cuts, cut_s)
    while not told.wait(rng.uniform(0.5, 1.5) * float(mean_ms) / 1e3):
        if not is_cut:
            began = time.monotonic()
            cuts += 1
        subprocess.run(
            [*iptables.split(), "-D" if is_cut else "-I", hook, "-j", chain], check=False
        )
        if is_cut:
            cut_s += time.monotonic() - began
        is_cut = not is_cut
        _write(stats, cuts, cut_s)


def _write(path: str, cuts: int, cut_s: float) -> None:
    with open(f"{path}.new", "w") as file:
        json.dump({"cuts": cuts, "cut_s": round(cut_s, 3)}, file)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main(sys.argv[1:])
